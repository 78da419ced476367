"""A report: a study's sections as index.html, report.md, figures and tables in a folder."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import polars as pl
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from recall_arena import atomic
from recall_arena.canvas import save
from recall_arena.records import DamagedRecord, Store
from recall_arena.report.inline import inlined
from recall_arena.report.models import played
from recall_arena.studies import Picture, Plan, Section, Study
from recall_arena.wording import values

NBSP = "\N{NO-BREAK SPACE}"
_TOGETHER = re.compile(r"<(script|style)\b.*?</\1>| = | %", re.DOTALL)

LARGEST = 3_000_000
"""So many bytes a page may have."""

SPACINGS = (1, 2, 4, 8)
"""The widths, in points, of which a run along training shows its lowest and highest value."""

_TEMPLATES = Environment(
    loader=PackageLoader("recall_arena.report"),
    autoescape=select_autoescape(["html.j2"]),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)


@dataclass(frozen=True)
class Origin:
    """Where a report's runs come from: `made` says with what, as far as their records tell.

    `damaged` names the files of the store that could not be read.
    """

    runs: int
    finished: int
    revisions: str
    made: dict[str, str]
    damaged: list[str]


def write_report(
    study: Study,
    plan: Plan,
    frame: pl.DataFrame,
    folder: Path,
    damaged: Sequence[DamagedRecord] = (),
    store: Store | None = None,
    more: Sequence[Section] = (),
) -> Path:
    """Write the report of a study from the runs in a frame, and return the page's path.

    Parts without runs say so, and what could not be read is named.  Of a `store` that has kept
    weights, the page runs the models that the study names.  The sections `more` follow its own.
    Writes only inside `folder`; needs no torch and no training.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for each in (folder, folder / "figures", folder / "tables"):
        atomic.sweep(each)
    own = study.select(frame, plan)
    sections = [*study.sections(own, plan), *more]
    for section in sections:
        for picture in section.drawn:
            drawing = picture.drawing
            save(drawing.figure, drawing.data, folder / "figures" / picture.name)
        for table in section.tables:
            path = folder / "tables" / f"{table.name}.csv"
            atomic.write(path, table.rows.write_csv().encode(), replace=True)
    trained = played(study, frame, store)
    unread = (*damaged, *trained.refused)
    context = {
        "study": study,
        "plan": plan,
        "sections": sections,
        "origin": _origin(own.filter(pl.col("kind") == "run"), study.size(plan), unread),
        "models": trained.models,
        "command": command(study, plan),
    }
    atomic.write(folder / "index.html", _page(folder, context), replace=True)
    text = _TEMPLATES.get_template("report.md.j2").render(**context)
    atomic.write(folder / "report.md", text.encode(), replace=True)
    return folder / "index.html"


def command(study: Study, plan: Plan) -> str:
    """The command that runs what a report shows."""
    words = ["recall study run", study.name, "--scale", plan.scale]
    if plan.seeds is not None:
        words += ["--seeds", str(plan.seeds)]
    if plan.parts != study.parts:
        words += ["--problem", *map(str, plan.parts)]
    return " ".join(words)


def anchor(heading: str) -> str:
    """A heading's name in links, as Markdown's readers make it."""
    return "".join(c for c in heading.lower().replace(" ", "-") if c.isalnum() or c in "-_")


def _together(page: str) -> str:
    """No line ends at an equals sign or before a per cent sign; code stays as it is."""
    return _TOGETHER.sub(lambda found: found[0] if found[1] else found[0].replace(" ", NBSP), page)


def _script(name: str) -> Markup:
    return Markup((files("recall_arena.report") / "static" / name).read_text())


def _page(folder: Path, context: dict[str, Any]) -> bytes:
    """The page, with as many points of each run along training as its size allows."""
    pictures = [picture for section in context["sections"] for picture in section.drawn]
    for spacing in SPACINGS:
        images = {picture.name: _image(folder, picture, spacing) for picture in pictures}
        page = _TEMPLATES.get_template("report.html.j2").render(
            **context, images=images, spacing=spacing
        )
        content = _together(page).encode()
        if len(content) <= LARGEST:
            break
    return content


def _image(folder: Path, picture: Picture, spacing: int) -> Markup:
    svg = (folder / "figures" / f"{picture.name}.svg").read_text()
    return Markup(inlined(svg, picture.name, picture.drawing, spacing))


def _origin(runs: pl.DataFrame, wanted: int, damaged: Sequence[DamagedRecord]) -> Origin:
    columns = ("kernels", "threads", "versions", "machine")
    made = {
        "Time": f"{runs['seconds'].sum():,.0f} seconds of training and testing, all runs added up",
        **{name.capitalize(): _counted(runs[name]) for name in columns},
    }
    named = [f"{one.path.name} {one.reason}" for one in damaged]
    made = made if runs.height else {}
    return Origin(wanted, runs.height, values(runs, "revision"), made, named)


def quoted(text: str) -> str:
    """What others wrote, as Markdown that shows it on one line and makes nothing of it."""
    line = " ".join(text.split())
    return re.sub(r"[\\`*\[\]<>|]", r"\\\g<0>", line)


def _counted(values: pl.Series) -> str:
    """Each value with the number of its runs, the most frequent first."""
    counts = values.value_counts(name="runs").sort("runs", values.name, descending=[True, False])
    return "; ".join(f"{value} ({n} run{'s' * (n > 1)})" for value, n in counts.rows())


_TEMPLATES.globals |= {"anchor": anchor, "script": _script}
_TEMPLATES.filters["quoted"] = quoted
