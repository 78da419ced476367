"""A report: a study's sections as index.html, report.md, figures and tables in a folder."""

import base64
from dataclasses import dataclass
from pathlib import Path

import polars as pl
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from recall_arena.canvas import save
from recall_arena.studies import Picture, Plan, Section, Study
from recall_arena.wording import values

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
    """Where a report's runs come from, as far as their records tell; each value with its count."""

    runs: int
    finished: int
    revisions: str
    seconds: float
    kernels: list[str]
    versions: list[str]
    machines: list[str]
    threads: list[str]


def write_report(study: Study, plan: Plan, frame: pl.DataFrame, folder: Path) -> Path:
    """Write the report of a study from the runs in a frame, and return the page's path.

    Parts without runs say so.  Writes only inside `folder`; needs no model and no training.
    """
    folder.mkdir(parents=True, exist_ok=True)
    own = study.select(frame, plan)
    sections = study.sections(own, plan)
    for section in sections:
        for picture in section.pictures:
            drawing = picture.drawing
            save(drawing.figure, drawing.data, folder / "figures" / picture.name)
        for table in section.tables:
            path = folder / "tables" / f"{table.name}.csv"
            path.parent.mkdir(exist_ok=True)
            table.rows.write_csv(path)
    context = {
        "study": study,
        "plan": plan,
        "sections": sections,
        "origin": _origin(own.filter(pl.col("kind") == "run"), study.size(plan)),
        "command": command(study, plan),
    }
    images = {p.name: _data_uri(folder, p) for section in sections for p in section.pictures}
    page = _TEMPLATES.get_template("report.html.j2").render(**context, images=images)
    (folder / "index.html").write_text(page, encoding="utf-8")
    text = _TEMPLATES.get_template("report.md.j2").render(**context)
    (folder / "report.md").write_text(text, encoding="utf-8")
    return folder / "index.html"


def command(study: Study, plan: Plan) -> str:
    """The command that runs what a report shows."""
    words = ["recall study run", study.name, "--scale", plan.scale]
    if plan.seeds != study.seeds[plan.scale]:
        words += ["--seeds", str(plan.seeds)]
    if plan.parts != study.parts:
        words += ["--problem", *map(str, plan.parts)]
    return " ".join(words)


def anchor(section: Section) -> str:
    """A section's name in links."""
    return "".join(c if c.isalnum() else "-" for c in section.title.lower())


def _data_uri(folder: Path, picture: Picture) -> str:
    svg = (folder / "figures" / f"{picture.name}.svg").read_bytes()
    return "data:image/svg+xml;base64," + base64.b64encode(svg).decode()


def _origin(runs: pl.DataFrame, wanted: int) -> Origin:
    return Origin(
        runs=wanted,
        finished=runs.height,
        revisions=values(runs, "revision"),
        seconds=float(runs["seconds"].sum()),
        kernels=_counted(runs["kernels"]),
        versions=_counted(runs["versions"]),
        machines=_counted(runs["machine"]),
        threads=_counted(runs["threads"]),
    )


def _counted(values: pl.Series) -> list[str]:
    counts = values.value_counts(name="runs").sort("runs", values.name, descending=[True, False])
    return [f"{value} ({count} runs)" for value, count in counts.rows()]


_TEMPLATES.globals["anchor"] = anchor
