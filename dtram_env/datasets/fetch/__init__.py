"""Brings published files to disk: `transfer` downloads one file and resumes it, `download` tries a
dataset's sources in turn, `archives` checks and unpacks archives of images with `unpack`."""
