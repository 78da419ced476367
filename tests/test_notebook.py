"""The notebook: the same as its text twin, and it runs."""

from pathlib import Path
from typing import Any

import IPython.display
import jupytext
import nbformat
import pytest
from conftest import ROOT, Smoke
from matplotlib.figure import Figure
from nbclient import NotebookClient

from recall_arena.claims import decide
from recall_arena.index import contents_of
from recall_arena.outcomes import runs_of
from recall_arena.records import Store
from recall_arena.studies import Plan
from recall_arena.studies.assignment import prose, settings
from recall_arena.studies.assignment.bullets import BULLETS
from recall_arena.studies.assignment.claims import ALL
from recall_arena.studies.assignment.scales import PROBLEMS

pytestmark = pytest.mark.whole

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


@pytest.fixture
def at_smoke_scale(smoke: Smoke, monkeypatch: pytest.MonkeyPatch) -> Smoke:
    """The environment in which the notebook finds all of its runs made."""
    monkeypatch.setenv("RECALL_SCALE", "smoke")
    monkeypatch.setenv("RECALL_STORE", str(smoke.store))
    return smoke


def cells_in_order(monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, Any], list[object]]:
    """Names and what is shown, by the cells in this process: not drawn, a tenth of the time."""
    shown: list[object] = []
    monkeypatch.setattr(IPython.display, "display", lambda *objects: shown.extend(objects))
    names: dict[str, Any] = {}
    for cell in nbformat.read(NOTEBOOK, as_version=4).cells:
        if cell.cell_type == "code":
            exec(cell.source.replace("%matplotlib inline", ""), names)
    return names, shown


@pytest.mark.filterwarnings("ignore")  # of figures that are shown and not closed
def test_the_notebooks_cells_run_in_their_order(
    at_smoke_scale: Smoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = sorted(at_smoke_scale.store.iterdir())
    _, shown = cells_in_order(monkeypatch)
    assert sorted(at_smoke_scale.store.iterdir()) == before, "its runs are not those of the study"
    assert sum(isinstance(each, Figure) for each in shown) >= 9


@pytest.mark.filterwarnings("ignore")
def test_seeds_and_verdicts_are_those_of_the_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """And so is what was written on them; the models inside which it looks are those it names."""
    records, plan = ROOT / "results" / "records", Plan("published", PROBLEMS)
    monkeypatch.setenv("RECALL_STORE", str(records))
    names, shown = cells_in_order(monkeypatch)
    rows = settings.select(contents_of(Store(records)).frame, plan, names["CHOSEN"])
    runs = runs_of(rows)
    assert set(names["runs"]["address"]) == set(runs["address"])
    report = decide(ALL, runs, settings.table_of(PROBLEMS))
    assert names["findings"] == report
    assert names["written"] == prose.of_store(records)
    text = " ".join(str(one.data) for one in shown if isinstance(one, IPython.display.Markdown))
    for bullet in BULLETS.values():
        assert bullet.asked in text
    assert sum(isinstance(each, Figure) for each in shown) >= 9 + 4 + 3, "four models looked into"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # those of the notebook's own machinery
def test_the_notebook_runs_from_start_to_end(at_smoke_scale: Smoke, tmp_path: Path) -> None:
    smoke = at_smoke_scale
    before = sorted(smoke.store.iterdir())
    page = nbformat.read(NOTEBOOK, as_version=4)
    resources = {"metadata": {"path": str(tmp_path)}}

    done = NotebookClient(page, timeout=240, resources=resources).execute()

    assert sorted(smoke.store.iterdir()) == before, "its runs are not those of the study"
    pictures = [
        o for c in done.cells for o in c.get("outputs", []) if "image/png" in o.get("data", {})
    ]
    assert len(pictures) >= 9
