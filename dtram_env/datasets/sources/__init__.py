"""One module for each source of images, which reads an official part, "train" or "test". `listing`
has what the sources of image files share."""
