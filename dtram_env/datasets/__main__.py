"""``python -m dtram_env.datasets``: what datasets there are, and fetching one."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from . import DATASETS, DatasetNotFoundError, data_root, fetch


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m dtram_env.datasets", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    download = commands.add_parser("download", help="fetch a dataset; what is there is checked")
    download.add_argument("name", choices=sorted(DATASETS))
    show = commands.add_parser("list", help="show every dataset, its environment and its files")
    root = "folder of all datasets (default: $DTRAM_DATA, else ~/.cache/dtram)"
    for command in (download, show):
        command.add_argument("--data-dir", type=Path, help=root)
    options = parser.parse_args(arguments)
    if options.command == "list":
        for name, info in DATASETS.items():
            folder = data_root(options.data_dir) / name
            state = f"files in {folder}" if info.ready(folder) else f"not fetched ({folder})"
            print(f"{name:10} {info.env_id:18} {info.description}")
            print(f"{'':10} {state if info.needs_data else 'drawn, needs no files'}")
        return 0
    try:
        place = fetch(options.name, data_dir=options.data_dir)
    except DatasetNotFoundError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{options.name}: {place or 'drawn, needs no files'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
