"""Builds the documentation.

    python docs/build.py               # generated pages and tables, and the site
    python docs/build.py --write       # generated pages and tables, nothing else
    python docs/build.py --pictures    # the GIFs and stills of the environment pages

The site has the demo in it, which needs npm. A warning of Sphinx is an error. Tests run the pages'
examples, and find broken links and stale pages.
"""

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs in a clone without installation

from demo import build as demo
from docs import leaderboard, pages, pictures, tables
from dtram_env.datasets import DatasetNotFoundError
from dtram_env.optional import MissingDependencyError

ROOT = pages.DOCS.parent
EXAMPLE = """--recipe talk --env-id DTRAM-Signpost-v0 --env first_glimpse=center --no-bf16
  --epochs 15 --locator gaussian std=0.35 gradient=state --stop joint gradient=reinforce reads=state
  into=state entropy=0 ram_share=0 max_mean_glimpses=none"""
"""Options of the run whose page the site shows; half a minute."""


def generate() -> dict[Path, str]:
    """The text of every generated page, and of those with generated tables."""
    return pages.generate() | tables.generate() | leaderboard.generate()


def write() -> None:
    """Writes the generated pages that are stale, and removes those of ids that no longer exist."""
    pages.PAGES.mkdir(exist_ok=True)
    made = generate()
    for path in pages.stale(made):
        if path in made:
            path.write_text(made[path], encoding="utf-8")
        else:
            path.unlink()
        print(f"{path.relative_to(ROOT)}: {'written' if path in made else 'removed'}")


def build_html() -> list[str]:
    """Runs Sphinx; returns what went wrong."""
    out = pages.DOCS / "_build"
    shutil.copyfile(ROOT / "examples/tour.ipynb", pages.DOCS / "tour.ipynb")
    sphinx = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-E", "-b", "html"]
    done = subprocess.run(
        [*sphinx, "-d", str(out / "doctrees"), str(pages.DOCS), str(out / "html")]
    )
    if done.returncode:
        return ["Sphinx: see its warnings above"]
    try:
        demo.build(out / "html" / "demo")
    except (DatasetNotFoundError, MissingDependencyError) as error:
        return [f"the demo: {error}"]
    run = out / "example"
    shutil.rmtree(run, ignore_errors=True)
    program = [sys.executable, "train/reinforce.py", *EXAMPLE.split(), "--run-dir", str(run)]
    if subprocess.run(program, stdout=subprocess.DEVNULL).returncode:
        return ["the run whose page the site shows: see its error above"]
    shutil.copyfile(run / "report.html", out / "html" / "report.html")
    print(f"python -m http.server -d {(out / 'html').relative_to(ROOT)} shows the site")
    return []


def main() -> int:
    """The command line; returns 0 if all is well."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help="write the generated pages only")
    parser.add_argument(
        "--pictures", nargs="*", metavar="ID", help="draw the pictures of all ids or of some"
    )
    options = parser.parse_args()
    os.chdir(ROOT)
    problems = []
    if options.pictures is not None:
        try:
            pictures.make_pictures(options.pictures)
        except (FileNotFoundError, ValueError) as error:
            parser.error(str(error))
    else:
        write()
        if not options.write:
            problems = build_html()
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
