"""The report: complete, self-contained, the same each time, and readable in a browser."""

import re
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from browser import chromium, needs_browser
from conftest import Smoke
from made_up import record, tally

from recall_arena.frame import frame_of
from recall_arena.records import DamagedRecord, Store
from recall_arena.report import write_report
from recall_arena.report.inline import THEME
from recall_arena.studies import STUDIES, Plan, Section
from recall_arena.studies.assignment.claims import ALL

STUDY = STUDIES["assignment"]
PLAN = Plan("smoke", (1, 2, 3), 1)


@pytest.fixture(scope="module")
def sections(smoke: Smoke) -> list[Section]:
    """What the report of the smoke study is written from."""
    return STUDY.sections(STUDY.select(frame_of(Store(smoke.store)), PLAN), PLAN)


def text(page: Path) -> str:
    """A page with ordinary spaces."""
    return page.read_text().replace("\N{NO-BREAK SPACE}", " ")


def test_the_page_needs_nothing_but_itself(smoke: Smoke) -> None:
    page = (smoke.report / "index.html").read_text()
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert sources
    links = [source for source in sources if not source.startswith(("data:", "#"))]
    assert all((smoke.report / link).is_file() for link in links)  # to the figures' data
    assert not re.findall(r"<(?:script|link|img)[^>]*(?:src|href)=\"(?!data:)|@import", page)


def test_figures_stand_in_the_page_with_real_text_in_its_own_colours(
    smoke: Smoke, sections: list[Section]
) -> None:
    page = text(smoke.report / "index.html")
    pictures = [picture for section in sections for picture in section.drawn]
    assert page.count("<svg ") == len(pictures)
    for picture in pictures:
        (drawn,) = re.findall(rf'<figure id="{picture.name}".*?</figure>', page, re.DOTALL)
        assert "</text>" in drawn
        assert "currentColor" in drawn
        assert not set(re.findall(r"#[0-9a-f]{6}", drawn)) & set(THEME)
        names = set(re.findall(r'\bid="([^"]*)"', drawn))
        assert set(re.findall(r"url\(#([^)]*)\)", drawn)) <= names


def test_each_bullet_of_the_assignment_leads_to_its_findings_and_figures(
    smoke: Smoke, sections: list[Section]
) -> None:
    page = (smoke.report / "index.html").read_text()
    anchors = re.findall(r'\bid="([^"]*)"', page)
    assert len(anchors) == len(set(anchors))
    assert set(re.findall(r'href="#([^"]*)"', page)) <= set(anchors)
    (where,) = (section for section in sections if section.index)
    answers = {answer.name: answer for answer in where.index}
    assert list(answers) == ["p1-1", "p1-2", "p1-3", "p2-1", "p2-2", "p2-3", "p3-1", "p3-2"]
    assert [one for section in sections for one in section.answers] == list(answers.values())
    assert set(answers) <= set(anchors)
    assert all(answer.pictures or answer.see for answer in answers.values())
    told = [one.question for answer in answers.values() for one in answer.findings]
    assert told == [claim.question for claim in ALL]
    text = (smoke.report / "report.md").read_text()
    headings = {line.lstrip("# ") for line in text.splitlines() if line.startswith("#")}
    assert {*told, *(answer.title for answer in answers.values())} <= headings


def test_every_figure_comes_in_four_formats_and_every_table_as_csv(
    smoke: Smoke, sections: list[Section]
) -> None:
    pictures = [picture for section in sections for picture in section.drawn]
    tables = [table for section in sections for table in section.tables]
    assert len(pictures) >= 10

    for picture in pictures:
        for ending in ("svg", "pdf", "png", "csv"):
            path = smoke.report / "figures" / f"{picture.name}.{ending}"
            assert path.stat().st_size > 0
    for table in tables:
        rows = pl.read_csv(smoke.report / "tables" / f"{table.name}.csv")
        assert rows.height == table.rows.height


def test_captions_say_what_a_reader_must_know(sections: list[Section]) -> None:
    for section in sections:
        for picture in section.drawn:
            each = "1 seed a setting" if picture.name == "overview" else "1 seed a curve"
            number = [] if picture.name == "overview" else ["n = "]
            for fact in ("L = 64", each, "M = ", "τ = ", "d = ", *number):
                assert fact in picture.drawing.caption or picture.name == "rates"


def test_every_comment_that_the_assignment_asks_for_has_a_finding(smoke: Smoke) -> None:
    page = text(smoke.report / "index.html")
    for question in (
        "Which models keep their accuracy beyond the training length, with delay 1?",
        "Which models keep their accuracy beyond the training length, with delay 5?",
        "What is the impact of a delay of five?",
        "Which models converge faster during training, with delay 1?",
        "How does Mamba (d = 8) cope with more queries?",
        "How does Transformer (RoPE) (d = 8) cope with more queries?",
        "How does the transformer compare with Mamba?",
        "How does Hybrid-A (d = 8) cope with more queries?",
        "How does Hybrid-B (d = 8) cope with more queries?",
        "Do hybrids improve on both?",
        "How does the embedding dimension impact Mamba&#39;s results?",
        "Does a delay of ten change anything for Mamba (M = 16, d = 64)?",
    ):
        assert question in page


def test_a_report_without_records_says_what_is_missing(tmp_path: Path) -> None:
    page = text(write_report(STUDY, PLAN, frame_of([]), tmp_path / "report"))
    assert "0 of 28\nruns finished" in page
    assert "not all runs are finished" in page
    assert "No run is finished." in page


@pytest.mark.whole
def test_what_strangers_wrote_is_shown_and_makes_nothing(tmp_path: Path) -> None:
    """Names of files and of machines come from anywhere."""
    name = "<img src=x onerror=alert(1)>[click](javascript:x)\n# Forged"
    damaged = [DamagedRecord(tmp_path / f"{name}.json", "is not named like a record")]
    one = record("mamba")
    made = replace(one.provenance, machine=name)
    frame = frame_of([replace(one, provenance=made)])
    page = write_report(STUDY, Plan("quick", (1,), 1), frame, tmp_path, damaged)
    said = page.with_name("report.md").read_text()
    shown = r"\<img src=x onerror=alert(1)\>\[click\](javascript:x) # Forged"
    assert shown in said
    assert "\n# Forged" not in said
    assert "<img src=x" not in page.read_text()


def test_one_diverged_seed_takes_nothing_down_and_the_revision_is_said(tmp_path: Path) -> None:
    quick = {"revision": 5, "budget": 6_000, "decay_steps": 0}
    records = [record(seed=seed, tau=tau, **quick) for seed in (100, 101) for tau in (1, 5)]
    nothing = tally({})
    records.append(record(seed=102, checks=nothing, contexts=nothing, ended_by="diverged", **quick))
    page = write_report(STUDY, Plan("quick", (1,), 3), frame_of(records), tmp_path).read_text()
    assert "5 of 36\nruns finished" in page
    assert "Problem 1" in page
    assert "Problem 2:" not in page
    assert "made with revision\n5 of the code" in page
    assert "<td>diverged after 3</td>" in page


@needs_browser
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_draws_the_whole_page_without_a_network(smoke: Smoke, width: int) -> None:
    said: list[str] = []
    asked: list[str] = []
    with chromium() as browser:
        page = browser.new_page(viewport={"width": width, "height": 900})
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto((smoke.report / "index.html").as_uri())
        drawn = page.evaluate(
            "[...document.querySelectorAll('figure svg')].map(svg => [svg, "
            "...svg.querySelectorAll('text')].every(e => e.getBoundingClientRect().width > 0))"
        )
        overflow = page.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        outside = page.evaluate(
            "[...document.querySelectorAll('p, h1, h2, h3, h4, figcaption, pre, li, .scroll')]"
            ".filter(e => e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML)"
        )

    assert said == []
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    assert len(drawn) >= 10
    assert all(drawn)
    assert overflow <= 0
    assert outside == []
