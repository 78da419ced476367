"""The delay ladder: how far behind its query may the value stand?

Mamba and Hybrid-A, whose first layer is Mamba's, on one query with every delay from 1 to 12.  A
short convolution sees three tokens back, so those of Mamba's two layers reach six together and
that of Hybrid-A three; further only the scan can bring a query to its value, or attention.

Each iteration's length is drawn from those up to L.  The rate is that which the assignment's search
at such lengths chose for either model with a delay of five; it is not searched again.  The claims
were written before the seeds that judge them were trained.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import polars as pl

from recall_arena.claims import HAS_LEARNT, SETTING, Claim, decide
from recall_arena.dots import Panel, by_setting
from recall_arena.figures import Drawing
from recall_arena.outcomes import runs_of
from recall_arena.plots import Axes2D, plot, points_of
from recall_arena.records import Store
from recall_arena.rules import Ahead, Harder, every_run_learns, in_each, standards
from recall_arena.studies.assignment.scales import LATE, Effort
from recall_arena.studies.assignment.settings import FLOOR, LONGEST, Setting, on_settings
from recall_arena.studies.study import NamedRun, Picture, Plan, Section, Study, Table
from recall_arena.wording import middle, name_of_value, recipe, settings
from recall_arena.zoo import look_of

REACHES = {"mamba": 6, "hybrid-a": 3}
"""Each model, and how many tokens the convolutions of its layers reach back together."""

MODELS = (*REACHES,)
DELAYS = range(1, 13)
WIDTH = 8
RATE = 1e-2
FAR = 16
"""The first length tested and the step to the next; the first at which every delay has a value."""


@dataclass(frozen=True)
class Scale:
    """What it costs, and what is spent on each model with each delay."""

    about: str
    effort: Effort


SCALES = {
    "smoke": Scale("a minute on two cores: every part runs, nothing is learnt", Effort(20)),
    "published": Scale(
        "forty minutes on two cores: ten seeds that nothing else has",
        Effort(20_000 + LATE, seeds=10, first_seed=200, decay_steps=LATE),
    ),
}

MAMBA, HYBRID_A = (pl.col("model") == model for model in MODELS)
TAU = pl.col("tau")
SETTINGS = pl.DataFrame(
    [{"model": model, "d": WIDTH, "M": 1, "tau": delay} for delay in DELAYS for model in MODELS]
)


def later(model: str) -> Claim:
    """Whether each further token of delay costs a model more iterations."""
    return Claim(
        f"What does a longer delay cost {look_of(model).label}?",
        "Iterations: the longer the delay, the later a run reaches 99 % validation accuracy.",
        pl.col("model") == model,
        Harder("tau", "steps_99"),
    )


REACH = Claim(
    "Is the reach of the convolutions felt?",
    "Yes: one token beyond what the convolutions of its layers reach together, six tokens for "
    "Mamba and three for Hybrid-A, a model needs more iterations to 99 % than at the last within.",
    (MAMBA & TAU.is_in([6, 7])) | (HYBRID_A & TAU.is_in([3, 4])),
    Ahead(
        "steps_99",
        "one token beyond the reach against the last within",
        [
            ("Mamba, τ = 7 against 6", MAMBA & (TAU == 7), MAMBA & (TAU == 6)),
            ("Hybrid-A, τ = 4 against 3", HYBRID_A & (TAU == 4), HYBRID_A & (TAU == 3)),
        ],
    ),
)
BETWEEN = Claim(
    "Does a second convolution help where one does not reach?",
    "Yes: with a delay of four, five and six, which two convolutions reach and one does not, "
    "Hybrid-A needs more iterations to 99 % than Mamba.",
    TAU.is_in([4, 5, 6]),
    Ahead(
        "steps_99",
        "Hybrid-A against Mamba",
        in_each({f"τ = {tau}": TAU.eq(tau) for tau in (4, 5, 6)}, HYBRID_A, MAMBA),
    ),
)
NO_WALL = Claim(
    "Is there a delay that is not learnt?",
    "No: every run of both models learns its delay, for what a convolution does not reach the scan "
    "carries.",
    pl.lit(value=True),
    every_run_learns(),
)
CLAIMS = (later("mamba"), later("hybrid-a"), REACH, BETWEEN, NO_WALL)


def _runs(plan: Plan, store: Store) -> list[NamedRun]:
    """Seed by seed, so that what is there after a while is some of each delay."""
    from recall_arena.evaluation import Contexts  # these need torch, as all the rest does not
    from recall_arena.studies.assignment.runs import setting_run

    effort = SCALES[plan.scale].effort
    contexts = Contexts(first=FAR, last=LONGEST, stride=FAR)
    return [
        NamedRun(
            f"{look_of(model).label} (τ = {delay}), seed {seed}",
            setting_run(
                Setting(1, model, d=WIDTH, M=1, tau=delay), RATE, effort, seed, contexts, mixed=True
            ),
        )
        for seed in effort.of(plan.seeds)
        for delay in reversed(DELAYS)
        for model in MODELS
    ]


def _size(plan: Plan) -> int:
    return SETTINGS.height * len(SCALES[plan.scale].effort.of(plan.seeds))


def _select(frame: pl.DataFrame, plan: Plan) -> pl.DataFrame:
    """The newest revision's rows of a plan's runs."""
    effort = SCALES[plan.scale].effort
    seeds = effort.of(plan.seeds)
    whole = {"budget": effort.steps, "first_seed": seeds.start, "seeds": len(seeds)}
    asked = SETTINGS.with_columns(
        **{name: pl.lit(number, pl.Int64) for name, number in whole.items()},
        decay=pl.lit(effort.decay),
        shortest=TAU + 1,
    )
    own = on_settings(frame, asked).filter(rate=RATE)
    return own.filter(pl.col("revision") == pl.col("revision").max())


def _sections(frame: pl.DataFrame, plan: Plan) -> list[Section]:
    ordered = SETTINGS.join(runs_of(frame).sort("seed"), on=SETTING, maintain_order="left_right")
    findings = decide(CLAIMS, ordered, SETTINGS)
    note = (
        f"Each iteration's length is drawn from τ + 1 to L. The rate, {RATE:g}, is that which the "
        "assignment's search chose for both models with a delay of five at such lengths."
    )
    return [
        Section(
            "The delay ladder",
            STUDY.question,
            (*_said(ordered), recipe(ordered), note, standards(CLAIMS, ordered)),
            _pictures(ordered) if ordered.height else (),
            (_table(ordered),) if ordered.height else (),
            tuple(findings[claim.question] for claim in CLAIMS),
        )
    ]


def _said(runs: pl.DataFrame) -> Iterator[str]:
    """How often each model learns, and how soon with the least delay and the greatest, in words."""
    for (model,), own in runs.group_by("model", maintain_order=True):
        first, last = (own.filter(tau=tau) for tau in (own["tau"].min(), own["tau"].max()))
        learnt, learnt_last = (each.filter(HAS_LEARNT).height for each in (own, last))
        yield (
            f"{look_of(model).label} learns the task on {learnt} of {own.height} runs. To 99 % it "
            f"takes a median of {middle(first, 'steps_99')} iterations with a delay of "
            f"{first['tau'][0]} and of {middle(last, 'steps_99')} with {last['tau'][0]}, where "
            f"{learnt_last} of {last.height} runs learn it."
        )


def _pictures(runs: pl.DataFrame) -> tuple[Picture, ...]:
    panels = (Panel("at L", runs, "at_L", FLOOR), Panel("beyond L", runs, "beyond"))
    return (
        Picture("delays-iterations", _iterations(runs)),
        Picture("delays-runs", by_setting(panels, "Every run")),
    )


def _iterations(runs: pl.DataFrame) -> Drawing:
    axes = Axes2D("tau", "steps_99", "model", None, ())
    points = points_of(runs, runs, axes)
    figure = plot(points, axes)
    for axis in figure.axes:
        axis.set(xlabel="delay τ", ylabel="iterations to 99 %", xticks=[*DELAYS])
        for model, reach in REACHES.items():
            axis.axvline(reach + 0.5, color=look_of(model).colour, linewidth=0.9, linestyle="--")
    caption = (
        "How soon: iterations to the first check with 99 % validation accuracy against the delay; "
        "a mark a run, a line through the medians, and no mark for a run that never got there. "
        f"Dashed: as far as each model's convolutions reach together. {settings(runs)}."
    )
    return Drawing(figure, points, caption, ())


def _table(runs: pl.DataFrame) -> Table:
    rows = []
    for (delay,), own in runs.group_by("tau", maintain_order=True):
        row = {"delay": name_of_value("tau", delay)}
        for model in MODELS:
            seen, name = own.filter(model=model), look_of(model).label
            learnt = seen.filter(HAS_LEARNT).height
            row[f"{name}: learnt"] = f"{learnt} of {seen.height}"
            row[f"{name}: to 99 %"] = middle(seen, "steps_99")
            row[f"{name}: beyond L"] = middle(seen, "beyond")
        rows.append(row)
    caption = (
        "Runs that learnt the task; medians over runs of the iterations to 99 % validation "
        "accuracy, and of the test accuracy from L + 1 to 3L."
    )
    return Table("delays", caption, pl.DataFrame(rows))


STUDY = Study(
    name="delays",
    question="How far behind its query may a value stand, and what does each token more cost?",
    parts=(1,),
    scales={name: scale.about for name, scale in SCALES.items()},
    runs=_runs,
    size=_size,
    select=_select,
    sections=_sections,
)
