"""Builds the documentation, or makes parts of it anew.

    python docs/build.py            # generated pages, doctests, links, HTML in docs/_build/html
    python docs/build.py --check    # fails unless the committed generated pages are up to date
    python docs/build.py --gifs     # the GIFs of trained agents, and the pages that show them
    python docs/build.py --stills   # the pictures of drawn and composed data, likewise

A failing doctest, a link that leads nowhere and a warning of Sphinx are errors. Addresses on the
web are not fetched.
"""

from __future__ import annotations

import argparse
import doctest
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a clone, installed or not

from docs import gifs, links, pages, stills

ROOT = pages.DOCS.parent


def written() -> list[Path]:
    """Every page, written or generated."""
    return [*sorted(pages.DOCS.glob("*.md")), *sorted(pages.PAGES.glob("*.md"))]


def write() -> None:
    """Generates the pages."""
    pages.PAGES.mkdir(exist_ok=True)
    made = pages.generate()
    for path in pages.stale(made):
        if path in made:
            path.write_text(made[path])
            print(f"{_short(path)}: written")
        else:
            path.unlink()
            print(f"{_short(path)}: removed, its id is no more")


def check() -> list[str]:
    """What is wrong with the generated pages as they lie."""
    return [f"{_short(path)}: not up to date" for path in pages.stale(pages.generate())]


def run_doctests(paths: Iterable[Path]) -> list[str]:
    """Runs every example of some pages; the failures are printed."""
    found = []
    for path in paths:
        failed, tried = doctest.testfile(str(path), module_relative=False, encoding="utf-8")
        print(f"{_short(path)}: {tried} examples, {failed} failed")
        if failed:
            found.append(f"{_short(path)}: {failed} of {tried} examples failed")
    return found


def build_html() -> list[str]:
    """Runs Sphinx."""
    out = pages.DOCS / "_build"
    sphinx = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-E", "-b", "html"]
    done = subprocess.run(
        [*sphinx, "-d", str(out / "doctrees"), str(pages.DOCS), str(out / "html")]
    )
    if done.returncode:
        return ["Sphinx: see its warnings above"]
    print(f"{_short(out / 'html' / 'index.html')}: open it in a browser")
    return []


def _short(path: Path) -> Path:
    return path.relative_to(ROOT)


def main() -> int:
    """The command line; 0 if all is well."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="compare the generated pages only")
    parser.add_argument("--gifs", nargs="*", metavar="ID", help="make the GIFs, all or some ids'")
    parser.add_argument("--stills", nargs="*", metavar="ID", help="make pictures of the data")
    parser.add_argument(
        "--signpost-run",
        type=Path,
        default=Path("runs/signpost"),
        help="DT-RAM trained on DTRAM-Signpost-v0 (default: runs/signpost)",
    )
    options = parser.parse_args()
    os.chdir(ROOT)
    if options.check:
        problems = check()
        if problems:
            problems.append("run: python docs/build.py, and commit what it writes")
    elif options.gifs is not None or options.stills is not None:
        try:
            if options.gifs is not None:
                gifs.make_gifs(options.gifs, options.signpost_run)
            if options.stills is not None:
                stills.make_stills(options.stills)
        except (FileNotFoundError, ValueError) as error:
            parser.error(str(error))
        write()
        problems = []
    else:
        write()
        problems = run_doctests(written())
        problems += [f"broken link: {link}" for link in links.broken(written(), ROOT)]
        problems += build_html()
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
