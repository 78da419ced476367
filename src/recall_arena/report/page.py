"""A report: a study's sections as index.html, report.md, figures and tables in a folder."""

import base64
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from recall_arena.figures import save
from recall_arena.records import Record, Store
from recall_arena.studies import Picture, Plan, Section, Study

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
    """Where a report's records come from, as far as they tell; each value with its count."""

    runs: int
    finished: int
    seconds: float
    kernels: list[str]
    versions: list[str]
    machines: list[str]
    threads: list[str]


def write_report(study: Study, plan: Plan, store: Store, folder: Path) -> Path:
    """Write the report of a study from the records there are, and return the page's path.

    Parts without records say so.  Writes only inside `folder`; needs no model and no training.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sections = study.sections(plan, store)
    for section in sections:
        for picture in section.pictures:
            save(picture.figure, picture.data, folder / "figures" / picture.name)
        for table in section.tables:
            path = folder / "tables" / f"{table.name}.csv"
            path.parent.mkdir(exist_ok=True)
            table.rows.write_csv(path)
    addresses = [named.run.address for named in study.runs(plan, store)]
    context = {
        "study": study,
        "plan": plan,
        "sections": sections,
        "origin": _origin(store.read_all(addresses), len(addresses)),
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


def _origin(records: list[Record], wanted: int) -> Origin:
    made = [record.provenance for record in records]
    return Origin(
        runs=wanted,
        finished=len(records),
        seconds=sum(
            (r.cost.training_seconds + r.cost.evaluation_seconds for r in records), start=0.0
        ),
        kernels=_counted(p.kernels for p in made),
        versions=_counted(" ".join(f"{k} {v}" for k, v in p.versions.items()) for p in made),
        machines=_counted(p.machine for p in made),
        threads=_counted(str(p.threads) for p in made),
    )


def _counted(values: Iterable[str]) -> list[str]:
    return [f"{value} ({count} runs)" for value, count in Counter(values).most_common()]


_TEMPLATES.globals["anchor"] = anchor
