"""The notebook: the same as its text twin, and it runs."""

from pathlib import Path

import jupytext
import nbformat
import pytest
from conftest import ROOT, Smoke
from nbclient import NotebookClient

NOTEBOOK = ROOT / "notebooks" / "assignment.ipynb"


def test_the_notebook_and_its_text_twin_say_the_same() -> None:
    pages = [jupytext.read(NOTEBOOK), jupytext.read(NOTEBOOK.with_suffix(".py"))]
    one, two = ([(cell.cell_type, cell.source) for cell in page.cells] for page in pages)
    assert one == two


def test_the_committed_notebook_shows_its_outputs_and_no_error() -> None:
    cells = [c for c in nbformat.read(NOTEBOOK, as_version=4).cells if c.cell_type == "code"]
    outputs = [output for cell in cells for output in cell.outputs]
    pictures = [o for o in outputs if "image/png" in o.get("data", {})]
    assert len(pictures) >= 9
    assert all(output.output_type != "error" for output in outputs)


@pytest.mark.filterwarnings("ignore")  # those of the notebook's own machinery
def test_the_notebook_runs_from_start_to_end(
    smoke: Smoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECALL_SCALE", "smoke")
    monkeypatch.setenv("RECALL_STORE", str(smoke.store))
    before = sorted(smoke.store.iterdir())
    page = nbformat.read(NOTEBOOK, as_version=4)
    resources = {"metadata": {"path": str(tmp_path)}}

    done = NotebookClient(page, timeout=240, resources=resources).execute()

    assert sorted(smoke.store.iterdir()) == before, "its runs are not those of the study"
    pictures = [
        o for c in done.cells for o in c.get("outputs", []) if "image/png" in o.get("data", {})
    ]
    assert len(pictures) >= 9
