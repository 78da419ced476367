"""Figures in the page: curves are the data, a script tells of them, and paper loses nothing."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import polars as pl
import pytest
from browser import chromium, needs_browser
from browser import opened as watched
from conftest import ROOT, Smoke
from hypothesis import given
from hypothesis import strategies as st
from made_up import record, tally

from recall_arena.figures import by_context, by_iterations, by_rate, known_queries
from recall_arena.frame import frame_of
from recall_arena.index import contents_of
from recall_arena.records import Store
from recall_arena.report import page as pages
from recall_arena.report import write_report
from recall_arena.report.traced import path_data
from recall_arena.studies import STUDIES, Picture, Plan, Section, Study
from recall_arena.zoo import ZOO

PDFTOTEXT = shutil.which("pdftotext")
MODELS, SEEDS, DELAYS = ("transformer-rope", "mamba", "hybrid-a"), range(4), (1, 5)
LENGTHS = range(2, 193)

pytestmark = [pytest.mark.whole, pytest.mark.filterwarnings("ignore::DeprecationWarning")]


def noisy(number: int, at: range, low: float) -> dict[int, float]:
    """Shares that no two runs have alike, some of them flat for a while."""
    draw = np.random.default_rng(number)
    shares = np.clip(low + np.linspace(0, 1 - low, len(at)) + draw.normal(0, 0.05, len(at)), 0, 1)
    return dict(zip(at, shares.round(3).tolist(), strict=True))


@pytest.fixture(scope="module")
def pictures() -> list[Picture]:
    """A figure of each kind, of three models with four seeds and two delays."""
    runs = [(model, seed, tau) for model in MODELS for seed in SEEDS for tau in DELAYS]
    frame = frame_of(
        record(
            model,
            seed,
            tau=tau,
            checks=tally(noisy(number, range(100, 30_001 - 3000 * seed, 100), 0.1)),
            contexts=tally(noisy(number + 100, LENGTHS[tau - 1 :], 0.3)),
        )
        for number, (model, seed, tau) in enumerate(runs)
    )
    trials = pl.DataFrame(
        {"model": model, "d": 8, "M": 1, "tau": 1, "K": 16, "L": 64, "budget": 100}
        | {"rate": rate, "seed": 1000, "validation": 0.125 + 0.25 * place, "chosen": place == 1}
        for model in MODELS
        for place, rate in enumerate((0.0003, 0.001, 0.003))
    )
    return [
        Picture("lengths", by_context(frame, "Here", ["M"], "tau")),
        Picture("delays", by_context(frame, "Here", ["tau"])),
        Picture("training", by_iterations(frame, "Here", ["tau"])),
        Picture("known", known_queries(frame, "Here", ["tau"])),
        Picture("rates", by_rate(trials, "Here", ["M"])),
    ]


def written(pictures: list[Picture], folder: Path) -> Path:
    """The page of a study with these pictures."""
    section = Section("Figures", "What do they show?", pictures=tuple(pictures))
    study = Study(
        *("made-up", "What do figures show?", (1,), {"any": ""}),
        runs=lambda plan, store: [],
        size=lambda plan: 0,
        select=lambda frame, plan: frame,
        sections=lambda frame, plan: [section],
    )
    return write_report(study, Plan("any", (1,)), frame_of([]), folder)


@pytest.fixture(scope="module")
def report(pictures: list[Picture], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(pictures, tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def opened(browser: Any, report: Path) -> Iterator[Any]:
    with watched(browser, report, 1200) as page:
        yield page


def plain(text: str) -> str:
    return text.replace("\N{NO-BREAK SPACE}", " ")


def percent(share: float) -> str:
    """As the script writes it: at least one decimal, at most two."""
    text = f"{100 * share:.2f}"
    return (text[:-1] if text.endswith("0") else text) + " %"


def rows(report: Path, name: str, **where: Any) -> pl.DataFrame:
    """Rows of a figure's CSV."""
    path = report.parent / "figures" / f"{name}.csv"
    return pl.read_csv(path, infer_schema_length=None).filter(**where)


def points(d: str) -> list[tuple[int, int]]:
    """The points of path data of M, l and h, read as SVG says."""
    x, y, found = 0, 0, []
    for command, numbers in re.findall(r"([Mlh])([^Mlh]*)", d):
        values = [int(number) for number in re.findall(r"-?\d+", numbers)]
        steps = (
            [(v, 0) for v in values] if command == "h" else zip(*[iter(values)] * 2, strict=True)
        )
        for right, down in steps:
            x, y = x + right, y + down
            found.append((x, y))
    return found


@given(st.lists(st.tuples(st.integers(-9, 999), st.integers(-999, 999)), min_size=1))
def test_path_data_goes_through_the_points(steps: list[tuple[int, int]]) -> None:
    x, y = np.cumsum(np.array(steps), axis=0).T
    d = path_data(x, y)
    assert points(d) == list(zip(x.tolist(), y.tolist(), strict=True))
    assert re.fullmatch(r"(?:[Mlh ]?-?\d+)+(?: -?\d+|-?\d+)*", d)


def test_each_curve_of_the_page_is_its_run_s_counts_in_the_csv(report: Path) -> None:
    (figure,) = re.findall(r'<figure id="delays".*?</figure>', plain(report.read_text()), re.DOTALL)
    panels = figure.split('<g id="delays-axes_')[1:]
    assert len(panels) == len(DELAYS)
    for tau, panel in zip(DELAYS, panels, strict=True):
        curves = re.findall(
            r'class="curve" data-model="([^"]*)" data-seed="(\d+)" data-per="1000" data-n="1000">'
            r'\s*<path [^>]*d="([^"]*)"',
            panel,
        )
        assert len(curves) == len(MODELS) * len(SEEDS)
        for label, seed, d in curves:
            (model,) = (name for name, look in ZOO.items() if look.label == label)
            own = rows(report, "delays", curve="run", model=model, seed=int(seed), tau=tau)
            assert points(d) == list(zip(own["at"], own["correct"], strict=True))


def test_words_and_tick_labels_of_the_page_are_those_of_the_file(report: Path) -> None:
    page = plain(report.read_text())
    files = list((report.parent / "figures").glob("*.svg"))
    assert len(files) >= 5
    for file in files:
        (figure,) = re.findall(rf'<figure id="{file.stem}".*?</figure>', page, re.DOTALL)
        texts = [re.findall(r"<text[^>]*>([^<]*)<", text) for text in (figure, file.read_text())]
        assert texts[0] == texts[1]
        assert file.stem != "rates" or {"0.0003", "0.001"} <= set(texts[0])


def client(
    opened: Any, picture: Picture, panel: int, at: float, value: float
) -> tuple[float, float]:
    """Where a value is in the window, as matplotlib places it in the figure."""
    figure = picture.drawing.figure
    x, y = figure.axes[panel].transData.transform((at, value))
    wide, high = figure.bbox.width, figure.bbox.height
    svg = opened.locator(f"#{picture.name} svg")
    svg.scroll_into_view_if_needed()
    box = svg.bounding_box()
    return box["x"] + box["width"] * x / wide, box["y"] + box["height"] * (1 - y / high)


def tip(opened: Any, name: str) -> str:
    return plain(opened.locator(f"#{name} .tip").inner_text())


@needs_browser
@pytest.mark.parametrize(("panel", "tau"), [(0, 1), (1, 5)])
def test_the_pointer_finds_a_run_s_exact_numbers(opened, report, pictures, panel, tau) -> None:
    own = rows(report, "delays", curve="run", model="mamba", seed=2, tau=tau, at=20)
    opened.locator("#delays button", has_text="Transformer").click()
    opened.locator("#delays button", has_text="Hybrid").click()
    share = own["value"].item()
    opened.mouse.move(*client(opened, pictures[1], panel, 20, share))
    said = tip(opened, "delays")
    assert "Mamba" in said
    assert "seed 2" in said
    assert "context length 20" in said
    assert f"test accuracy {percent(share)} ({own['correct'].item()} right)" in said
    assert f"n = {own['asked'].item():,} sequences" in said


@needs_browser
def test_the_pointer_finds_medians_along_training(opened, report, pictures) -> None:
    opened.locator("#training button", has_text="each seed").click()
    own = rows(report, "training", curve="median", model="hybrid-a", tau=5, at=25_000)
    opened.mouse.move(*client(opened, pictures[2], 1, 25_000, own["value"].item()))
    said = tip(opened, "training")
    assert "Hybrid-A" in said
    assert "median of 4 seeds" in said
    assert "iterations 25,000" in said
    assert f"validation accuracy {percent(own['value'].item())}" in said


@needs_browser
def test_the_pointer_finds_a_rate_that_was_tried(opened, pictures) -> None:
    opened.locator("#rates button", has_text="each seed").click()
    opened.mouse.move(*client(opened, pictures[4], 0, 0.0003, 0.125))
    said = tip(opened, "rates")
    assert "learning rate 0.0003" in said
    assert "validation accuracy 12.5 %" in said
    assert "2 more curves here" in said


@needs_browser
def test_arrow_keys_go_along_a_curve_and_to_the_next(opened, report) -> None:
    scroll = opened.locator("#delays .scroll")
    opened.locator("#delays input").focus()
    opened.keyboard.press("Tab")
    assert "Arrow keys" in tip(opened, "delays")
    for key, model, at in (("Right", "Transformer (RoPE)", 2), ("Right", "Transformer (RoPE)", 3)):
        scroll.press(f"Arrow{key}")
        said = tip(opened, "delays")
        assert model in said
        assert f"context length {at}" in said
    scroll.press("End")
    last = rows(report, "delays", curve="median", model="transformer-rope", tau=1, at=192)
    assert percent(last["value"].item()) in tip(opened, "delays")
    scroll.press("ArrowDown")
    assert "Mamba" in tip(opened, "delays")
    scroll.press("Escape")
    assert not opened.locator("#delays .tip").is_visible()


def shown(opened: Any, name: str) -> list[tuple[str, str | None]]:
    """Models and seeds of the curves that are seen."""
    return [
        tuple(pair)
        for pair in opened.evaluate(
            "name => [...document.querySelectorAll(`#${name} .curve`)]"
            ".filter(c => [...c.querySelectorAll(':scope > *')].map(e => e.getBoundingClientRect())"
            ".some(box => box.width + box.height > 0))"
            ".map(c => [c.dataset.model, c.dataset.seed ?? null])",
            name,
        )
    ]


@needs_browser
@pytest.mark.parametrize("name", ["lengths", "delays", "training", "known", "rates"])
def test_a_button_hides_exactly_its_own_curves(opened, name) -> None:
    everything = shown(opened, name)
    for label in (ZOO[model].label for model in MODELS):
        button = opened.locator(f"#{name} button", has_text=label)
        button.press("Enter")
        assert button.get_attribute("aria-pressed") == "false"
        assert shown(opened, name) == [pair for pair in everything if pair[0] != label]
        button.press("Enter")
        assert shown(opened, name) == everything
    opened.locator(f"#{name} button", has_text="each seed").click()
    assert shown(opened, name) == [pair for pair in everything if pair[1] is None]


@needs_browser
def test_a_variant_s_button_hides_its_dashes(opened) -> None:
    before = len(shown(opened, "lengths"))
    opened.locator("#lengths button", has_text="τ = 5").click()
    assert len(shown(opened, "lengths")) == before // 2


def slide(opened: Any, name: str, length: int) -> list[list[str]]:
    """The cells of the table of a figure whose slider is put to a length."""
    opened.locator(f"#{name} input").focus()
    for key in ("End", "Home"):
        opened.keyboard.press(key)
    for _ in range(length - 2):
        opened.keyboard.press("ArrowRight")
    cells = "rows => rows.map(row => [...row.cells].map(cell => cell.innerText))"
    found = opened.locator(f"#{name} .found tbody tr").evaluate_all(cells)
    return [[plain(cell) for cell in row] for row in found]


@needs_browser
@pytest.mark.parametrize("length", [2, 33])
def test_the_slider_s_table_is_the_data(opened, report, length) -> None:
    expected = []
    for tau in DELAYS:
        for model in MODELS:
            runs = rows(report, "delays", curve="run", model=model, tau=tau, at=length)["value"]
            label = [f"τ = {tau}", ZOO[model].label]
            if runs.is_empty():
                expected.append([*label, "not tested", "", "", ""])
                continue
            range_ = f"{percent(min(runs)).removesuffix(' %')} to {percent(max(runs))}"
            expected.append([*label, percent(median(runs)), range_, "4", "1,000"])
    assert slide(opened, "delays", length) == expected


@needs_browser
def test_v_apart_from_q_is_in_the_curves_and_in_the_table(opened, report, pictures) -> None:
    opened.locator("#delays button", has_text="v ≠ q").click()
    own = rows(report, "delays", curve="median", model="mamba", tau=1, at=20)["apart"].item()
    runs = rows(report, "delays", curve="run", model="mamba", tau=1, at=20)
    assert own == pytest.approx(median(runs["correct_apart"] / runs["asked_apart"]), abs=1e-9)
    assert own != pytest.approx(median(runs["value"]), abs=1e-3)
    assert {seed for _, seed in shown(opened, "delays")} == {None}
    opened.mouse.move(*client(opened, pictures[1], 0, 20, own))
    said = tip(opened, "delays")
    assert "where the value is not the query" in said
    assert percent(round(own, 4)) in said
    assert "n = 950 sequences" in said
    assert ["τ = 1", "Mamba", percent(round(own, 4)), "4", "950"] in slide(opened, "delays", 20)


@needs_browser
def test_without_script_everything_is_shown_and_nothing_promised(browser, report) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(report.as_uri())
    everything = len(MODELS) * (len(SEEDS) + 1) * len(DELAYS)
    assert page.locator("#delays .curve > path:not(.apart):visible").count() == everything
    assert page.locator(".apart:visible, button, input, .tip").count() == 0
    context.close()


def test_a_page_that_is_too_large_has_fewer_points_of_each_run_and_all_extremes(
    pictures, tmp_path, monkeypatch
) -> None:
    def runs(page: Path) -> list[list[tuple[int, int]]]:
        (figure,) = re.findall(r'<figure id="training".*?</figure>', page.read_text(), re.DOTALL)
        found = re.findall(r'data-seed="\d+" [^>]*>\s*<path [^>]*d="([^"]*)"', figure)
        return [points(d) for d in found]

    (training,) = (picture for picture in pictures if picture.name == "training")
    fine = runs(written([training], tmp_path / "fine"))
    monkeypatch.setattr(pages, "LARGEST", 1)
    page = written([training], tmp_path / "coarse")
    coarse = runs(page)
    assert "in every 8 pt of" in page.read_text()
    assert len(fine) == len(coarse) == len(MODELS) * len(SEEDS) * len(DELAYS)
    for one, other in zip(fine, coarse, strict=True):
        assert len(other) < len(one) / 2
        assert set(other) <= set(one)
        assert (other[0], other[-1]) == (one[0], one[-1])
        assert {f([y for _, y in one]) for f in (min, max)} <= {y for _, y in other}


def test_the_published_report_is_what_is_kept_shows_every_seed_and_is_no_larger_than_it_may(
    tmp_path,
) -> None:
    study, plan = STUDIES["assignment"], Plan("published", (1, 2, 3))
    store = Store(ROOT / "results" / "records")
    frame = study.select(contents_of(store).frame, plan)
    page = write_report(study, plan, frame, tmp_path, (), store)
    assert page.read_text().count('data-seed="119"') >= 2 * 2 * 4  # figures, delays and models
    assert page.stat().st_size <= 3_000_000
    kept = ROOT / "results" / "report" / "report.md"
    assert (tmp_path / "report.md").read_text() == kept.read_text()


@pytest.fixture
def printed(browser: Any, smoke: Smoke) -> Iterator[Any]:
    """The smoke report, on paper 186 mm wide between its margins."""
    page = browser.new_page(viewport={"width": 703, "height": 1000})
    page.goto((smoke.report / "index.html").as_uri())
    page.emulate_media(media="print")
    yield page
    page.close()


@needs_browser
def test_nothing_is_wider_than_the_paper_and_no_control_is_printed(printed) -> None:
    wide = printed.evaluate(
        "[...document.querySelectorAll('body, body *:not(svg *)')].filter(e => "
        "e.getBoundingClientRect().right > innerWidth + 1 || e.scrollWidth > e.clientWidth + 1 "
        "&& getComputedStyle(e).display !== 'inline').map(e => e.outerHTML.slice(0, 200))"
    )
    assert wide == []
    assert printed.locator("figure svg:visible").count() >= 10
    assert printed.locator(".controls:visible, .tip:visible, .found:visible").count() == 0


@needs_browser
def test_what_a_reader_has_hidden_is_printed(browser, report) -> None:
    page = browser.new_page()
    page.goto(report.as_uri())
    everything = shown(page, "delays")
    for words in ("Mamba", "v ≠ q", "each seed"):
        page.locator("#delays button", has_text=words).click()
    assert len(shown(page, "delays")) < len(everything)
    page.emulate_media(media="print")
    assert shown(page, "delays") == everything
    page.close()


@needs_browser
@pytest.mark.skipif(PDFTOTEXT is None, reason="needs poppler-utils' pdftotext")
def test_the_pdf_has_every_finding_and_every_heading_of_its_tables(printed, tmp_path) -> None:
    path = tmp_path / "report.pdf"
    printed.pdf(path=path, prefer_css_page_size=True)
    done = subprocess.run([str(PDFTOTEXT), path, "-"], check=True, capture_output=True, text=True)

    def bare(words: str) -> str:
        return re.sub(r"[\s\u00ad\ufffe-]", "", words)  # a hyphen at a line's end may go

    text = bare(done.stdout)
    wanted = printed.locator("h1, h2, h3, h4, th, .finding p, figcaption").all_text_contents()
    assert len(wanted) > 100
    assert [words for words in wanted if bare(words) not in text] == []
    size = re.findall(rb"/MediaBox ?\[0 0 ([\d.]+) ([\d.]+)\]", path.read_bytes())
    assert {(round(float(w)), round(float(h))) for w, h in size} == {(595, 842)}
