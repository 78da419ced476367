"""Beyond the assignment: every length up to L is trained, and not L alone.

"We will train these models up to context length L" can be read so; step 1 of the recipe says
exactly L.  Scale `mixed` trains every setting this way, at rates of its own search; the claims here
set its runs against those of the recipe.  They were written before the runs that judge them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from recall_arena.claims import HAS_LEARNT, SETTING, Claim, Finding, decide
from recall_arena.rules import Ahead, every_run_learns, in_each
from recall_arena.studies.assignment import pictures, rates, tables
from recall_arena.studies.assignment.claims import ALL, LEARNERS, PROBLEM, ROPE, TAU
from recall_arena.studies.assignment.scales import PROBLEMS
from recall_arena.studies.assignment.settings import MIXED, table_of
from recall_arena.studies.study import Plan, Section, Table
from recall_arena.wording import recipe

BOTH = {f"τ = {tau}": TAU.eq(tau) for tau in (1, 5)}
BY_DELAY = {
    f"{name}, {delay}": own & where
    for delay, where in BOTH.items()
    for name, own in LEARNERS.items()
}
HYBRID = pl.col("model").is_in(["hybrid-a", "hybrid-b"])

SHORT = Claim(
    "Does training at every length up to L mend the short contexts?",
    "Yes: of the runs that learnt the task, those of each model that learns it are more accurate "
    "over the lengths below L when these were trained too, at either delay.",
    (PROBLEM == 1) & pl.any_horizontal(LEARNERS.values()),
    Ahead(
        "below",
        "mixed lengths against L alone",
        in_each(BY_DELAY, MIXED, ~MIXED),
        among=HAS_LEARNT,
        condition="runs that learnt the task",
    ),
)
SOONER = Claim(
    "Does the induction head come sooner?",
    "Yes: each model that learns it needs fewer iterations to 99 % validation accuracy at L with "
    "mixed lengths, at either delay: the fewer tokens, the fewer that may be the answer.",
    (PROBLEM == 1) & pl.any_horizontal(LEARNERS.values()),
    Ahead("steps_99", "L alone against mixed lengths", in_each(BY_DELAY, ~MIXED, MIXED)),
)
FURTHER = Claim(
    "Does it carry a transformer further beyond L?",
    "Yes: of the runs that learnt the task, the RoPE transformer's are more accurate over the "
    "lengths from L + 1 to 3L with mixed lengths, at either delay.",
    (PROBLEM == 1) & ROPE,
    Ahead(
        "beyond",
        "mixed lengths against L alone",
        in_each(BOTH, MIXED & ROPE, ~MIXED & ROPE),
        among=HAS_LEARNT,
        condition="runs that learnt the task",
    ),
)
EVERY_QUERY = Claim(
    "Do the hybrids learn to recall any token?",
    "Yes: with mixed lengths every run of both hybrids learns the task with 4, 8 and 16 queries.",
    (PROBLEM == 2) & HYBRID,
    every_run_learns(MIXED, "runs with mixed lengths"),
)
CLAIMS = (SHORT, SOONER, FURTHER, EVERY_QUERY)


@dataclass(frozen=True)
class Findings:
    """What runs say: of L alone, of lengths up to L, and of the one set against the other.

    alone, mixed  the assignment's claims, `claims.ALL`
    both          the claims here
    """

    alone: Mapping[str, Finding]
    mixed: Mapping[str, Finding]
    both: Mapping[str, Finding]


def decided(runs: pl.DataFrame, reading: pl.Expr = MIXED) -> Findings:
    """What runs say; `reading` tells those at lengths up to L from the assignment's own."""
    settings = table_of(PROBLEMS)
    return Findings(
        decide(ALL, runs.filter(~reading), settings),
        decide(ALL, runs.filter(reading), settings),
        decide(CLAIMS, _of_both(runs), settings),
    )


def _of_both(runs: pl.DataFrame) -> pl.DataFrame:
    """Those of settings that were trained at lengths up to L."""
    return runs.join(runs.filter(MIXED), on=SETTING, how="semi", maintain_order="left")


def section(
    frame: pl.DataFrame,
    runs: pl.DataFrame,
    findings: Findings,
    said: Sequence[str] = (),
) -> list[Section]:
    """Both readings beside one another, from the rows of both; empty unless both were trained.

    runs      those of both, in the order of the settings
    findings  what they say
    said      paragraphs that were written on it
    """
    trained, runs = runs.filter(MIXED), _of_both(runs)
    if trained.is_empty() or trained.height == runs.height:
        return []
    return [
        Section(
            "Every length up to L",
            "What if the models are trained at every length up to L, and not at L alone?",
            (
                *said,
                "“We will train these models up to context length L” can be read so; step 1 of the "
                "recipe says exactly L, and so does all above. Here each iteration's length is "
                "drawn from τ + 1 to L, at rates of a search of its own; validation and tests are "
                f"the same. {recipe(trained)}",
            ),
            pictures=tuple(pictures.mixed(runs.filter(~MIXED), trained, frame.filter(MIXED))),
            tables=(tables.readings(runs), _verdicts(findings)),
            findings=tuple(findings.both[claim.question] for claim in CLAIMS),
        )
    ]


def trials(frame: pl.DataFrame) -> pl.DataFrame | None:
    """The search's trials at lengths up to L, if the rows hold runs by both readings."""
    both = frame.select(MIXED.any() & ~MIXED.all()).item() if frame.height else False
    return rates.published(Plan("mixed", PROBLEMS)).filter(MIXED) if both else None


def _verdicts(findings: Findings) -> Table:
    """What the same claims come to by either reading, where both decide or try to."""
    rows = [
        {
            "question": claim.question,
            "L alone": findings.alone[claim.question].verdict,
            "lengths up to L": findings.mixed[claim.question].verdict,
        }
        for claim in ALL
        if findings.mixed[claim.question].verdict
    ]
    return Table("readings-verdicts", "The same hypotheses by either reading.", pl.DataFrame(rows))
