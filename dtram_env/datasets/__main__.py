"""``python -m dtram_env.datasets``: lists the datasets; downloads, decodes, draws or checks one."""

import argparse
import signal
import sys
from dataclasses import fields
from pathlib import Path

from ..optional import MissingDependencyError
from ..output import for_any_reader, in_one_line
from . import (
    DATASETS,
    DatasetCorruptError,
    DatasetInfo,
    ImageOptions,
    build,
    data_root,
    download,
    verify,
)

NATIVE = "native"


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns the exit code."""
    try:
        with for_any_reader():
            options = _parser().parse_args(arguments)
            options.run(options)
    except (OSError, DatasetCorruptError, ValueError, MissingDependencyError) as error:
        print(in_one_line(error), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted; the same command begins again", file=sys.stderr)
        return 128 + signal.SIGINT
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m dtram_env.datasets", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    show = commands.add_parser("list", help="show all datasets with their environments and files")
    show.set_defaults(run=_list)
    fetch = commands.add_parser("download", help="download a dataset and check its files")
    fetch.set_defaults(run=_download)
    make = commands.add_parser("build", help="decode or draw a whole dataset, once")
    make.set_defaults(run=_build)
    check = commands.add_parser("verify", help="compare a dataset's caches with their checksums")
    check.set_defaults(run=_verify)
    root = "folder of all datasets (default: $DTRAM_DATA, else ~/.cache/dtram)"
    for command in (show, fetch, make, check):
        if command is not show:
            command.add_argument("name", choices=sorted(DATASETS))
        command.add_argument("--data-dir", type=Path, help=root)
    make.add_argument(
        "--image-size",
        type=lambda text: NATIVE if text == NATIVE else _count(text),
        help=f"shorter side in pixels, or {NATIVE!r} (default: as in the dataset's environment)",
    )
    make.add_argument("--crop-to-box", action="store_true", help="cut images to their boxes")
    make.add_argument("--root", help="folder of your own images")
    what = "of a drawn dataset"
    make.add_argument("--num-classes", type=_count, help=f"number of classes {what}")
    make.add_argument("--num-train", type=_count, help=f"training and validation images {what}")
    make.add_argument("--num-test", type=_count, help=f"test images {what}")
    make.add_argument(
        "--thumbnail-size",
        type=_count,
        action="append",
        help="make thumbnails of this side too; may be repeated (default: as in the environment)",
    )
    return parser


def _list(options: argparse.Namespace) -> None:
    for name, info in DATASETS.items():
        folder = data_root(options.data_dir) / (info.folder or name)
        print(f"{name:15} {info.env_id:24} {info.description}")
        print(f"{'':15} {_state(info, folder)}")


def _state(info: DatasetInfo, folder: Path) -> str:
    if info.fetch is not None:
        return f"not fetched ({folder})" if info.lacking(folder) else f"files in {folder}"
    return "drawn, needs no files" if info.drawn else "yours, needs no other files"


def _download(options: argparse.Namespace) -> None:
    place = download(options.name, data_dir=options.data_dir)
    print(f"{options.name}: {place or _state(DATASETS[options.name], Path())}")


def _verify(options: argparse.Namespace) -> None:
    for folder in verify(options.name, data_dir=options.data_dir):
        print(f"{options.name}: {folder} is as it was made")


def _build(options: argparse.Namespace) -> None:
    from ..registration import TABLE  # imports the datasets

    registered = TABLE[DATASETS[options.name].env_id]  # gives the defaults
    values = {field.name: getattr(options, field.name) for field in fields(ImageOptions)}
    if options.image_size is None:
        values["image_size"] = registered.get("image_size")
    elif options.image_size == NATIVE:
        values["image_size"] = None
    sizes = options.thumbnail_size
    if sizes is None:
        first = registered.get("first_glimpse") == "thumbnail"
        sizes = [registered["glimpse_size"]] if first else []
    images = ImageOptions(**values)
    place = build(
        options.name, data_dir=options.data_dir, options=images, thumbnail_sizes=tuple(sizes)
    )
    print(f"{options.name}: {place}")


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, got {text!r}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
