"""The notebook of the tour: it runs, and prints what it shows."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat")
TOUR = Path(__file__).resolve().parents[1] / "examples/tour.ipynb"


def _printed(notebook: Any) -> Iterator[str]:
    """Texts that the cells printed or returned; pictures give the size that their text has."""
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            assert output.output_type != "error"
            yield output.text if "text" in output else output.data["text/plain"]


@pytest.mark.slow
def test_the_tour_runs_and_prints_what_it_shows(mnist_folder: Path) -> None:
    nbclient = pytest.importorskip("nbclient")
    notebook = nbformat.read(TOUR, as_version=4)
    shown = list(_printed(notebook))
    run = nbclient.NotebookClient(
        notebook, timeout=600, resources={"metadata": {"path": TOUR.parent}}
    )
    run.execute()
    assert list(_printed(notebook)) == shown
    assert any("error 0.60 % at 2.40 glimpses" in text for text in shown)
