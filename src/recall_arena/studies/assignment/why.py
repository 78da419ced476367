"""Why the models of Problem 1 do what they do: hypotheses about their insides, judged by runs.

What is measured inside a run is a row of the file beside this one, which `recall study explain`
writes for the runs whose weights a store keeps: the columns of MEASURED, null where they do not
apply.  `insides.py` says how each is measured.
"""

from collections.abc import Sequence
from pathlib import Path
from statistics import mode

import polars as pl

from recall_arena.claims import HAS_LEARNT, SETTING, Claim, decide
from recall_arena.rules import Every
from recall_arena.studies.assignment.claims import BY_MODEL, LEARNERS, MAMBA, PROBLEM, ROPE
from recall_arena.studies.assignment.settings import table_of
from recall_arena.studies.study import Section, Table
from recall_arena.wording import limit, middle, seeds
from recall_arena.zoo import look_of

FILE = Path(__file__).with_name("insides.csv")
MEASURED = (
    *("followed", "previous", "previous_3L", "value_on_query", "value_on_query_3L"),
    *("on_value", "on_value_3L", "entered", "entered_after", "written"),
    *("after_value", "short_wrong", "short_query"),
)
SEQUENCES = 1000
"""Test sequences of a run; those count whose value is not the query."""

LONG = 200
"""At 3L, where attention weights take nine times the memory and the time."""

HALF = 0.5
BINDS = 0.99
SOME = 0.05
"""The share of wrong answers from which it is asked what they are."""

LEARNER = pl.any_horizontal(*LEARNERS.values())
LEARNT = "runs that learnt the task"


def _every(
    question: str, hypothesis: str, about: pl.Expr, measure: str, least: float, *also: pl.Expr
) -> Claim:
    """That a measure is at least so much in each run that learnt, and `also` holds of it."""
    return Claim(
        question,
        hypothesis,
        (PROBLEM == 1) & about,
        Every(
            measure=measure,
            passes=pl.all_horizontal(pl.col(measure) >= least, *also),
            threshold=f"at least {limit(least)}",
            among=HAS_LEARNT & pl.col(measure).is_not_null(),
            condition=LEARNT,
        ),
    )


BREAKS = Claim(
    "What breaks in the RoPE transformer beyond L?",
    "The match, not the look back: from L to 3L its second layer loses more of the weight on the "
    "value than its first layer loses of the weight on the token τ back.",
    (PROBLEM == 1) & ROPE,
    Every(
        measure="on_value_3L",
        passes=pl.col("on_value") - pl.col("on_value_3L")
        > pl.col("previous") - pl.col("previous_3L"),
        threshold="a larger loss since L than that of the first layer's weight on the token τ back",
        among=HAS_LEARNT,
        condition=LEARNT,
    ),
)
COUNTING = Claim(
    "What does the transformer without positions answer when it is wrong?",
    "The token after the value, more often than all others together: it can tell order by "
    "counting alone, which fades along the sequence.",
    (PROBLEM == 1) & BY_MODEL["Transformer (NoPE)"],
    Every(
        measure="after_value",
        passes=pl.col("after_value") >= HALF,
        threshold=f"at least {limit(HALF)}",
        among=pl.col("after_value").is_not_null(),
        condition="runs with wrong answers",
    ),
)
SHORTCUT = Claim(
    "What do they answer at short contexts when they are wrong?",
    "The query itself: in training, a context with many copies of q was one whose value is q, and "
    "where tokens are few one copy is many.",
    (PROBLEM == 1) & LEARNER,
    Every(
        measure="short_query",
        passes=pl.col("short_query") >= HALF,
        threshold=f"at least {limit(HALF)}",
        among=HAS_LEARNT & (pl.col("short_wrong") >= SOME),
        condition=f"runs that learnt the task and err at L / 8 at least {limit(SOME)} of the time",
    ),
)
WHY = (
    _every(
        "Do they bind the value to the query?",
        "Yes: where the value in the context is exchanged for another one, right answers follow.",
        LEARNER,
        "followed",
        BINDS,
    ),
    _every(
        "How does the RoPE transformer's second layer find the value?",
        "As an induction head does (arXiv:2209.11895): the final query gives the value at least "
        "half of its attention.",
        ROPE,
        "on_value",
        HALF,
    ),
    _every(
        "How does it know which token is the value?",
        "Its first layer looks τ tokens back, with at least half of its attention, so that each "
        "token knows the one that it may be the value of.",
        ROPE,
        "previous",
        HALF,
    ),
    BREAKS,
    _every(
        "Does Hybrid-A's attention find the value at lengths that were never trained?",
        "Yes: it matches content, which the Mamba layer below has moved to the value, so at 3L "
        "the value still has at least half of the attention.",
        BY_MODEL["Hybrid-A"],
        "on_value_3L",
        HALF,
    ),
    _every(
        "When does Mamba write the value into its state?",
        "As soon as its convolution can bring value and query together: in one of the layers at "
        "least half of what Δ rises by, around the query, is at the value or up to three tokens "
        "after it.",
        MAMBA,
        "written",
        HALF,
    ),
    COUNTING,
    SHORTCUT,
)


def section(runs: pl.DataFrame, measured: pl.DataFrame, said: Sequence[str] = ()) -> list[Section]:
    """What was measured inside these runs, by setting, and what it says; empty if in none.

    `said` are paragraphs that were written on it.
    """
    inside = runs.join(measured, on="address", how="inner", maintain_order="left")
    if inside.is_empty():
        return []
    findings = decide(WHY, inside, table_of((1,)))
    paragraph = (
        f"Of each setting {seeds(inside)} were looked into, with those of {SEQUENCES:,} test "
        f"sequences ({LONG} at 3L) whose value is not the query. A position is told by its offset "
        "from the query's first appearance: the value has offset τ. `recall inspect ADDRESS` draws "
        "all of it, for any run whose weights are kept."
    )
    return [
        Section(
            "Why",
            "What happens inside the models that learnt the induction head, and where does it "
            "break?",
            (*said, paragraph),
            tables=(table(inside),),
            findings=tuple(findings[claim.question] for claim in WHY),
        )
    ]


def table(inside: pl.DataFrame) -> Table:
    """A row a setting: medians over runs that learnt, or over all where none did."""
    rows = []
    for (model, _, _, tau), own in inside.group_by(SETTING, maintain_order=True):
        learnt = own.filter(HAS_LEARNT)
        of = own if learnt.is_empty() else learnt
        there = {name: _or_nothing(of, name) for name in MEASURED}
        rows.append(
            {
                "model": f"{look_of(model).label}, τ = {tau}",
                "runs": f"{of.height}{' (none learnt)' if learnt.is_empty() else ''}",
                "value on query": _pair(there, "value_on_query"),
                "query on value": _pair(there, "on_value"),
                "enters at": _place(of, there["entered"]),
                "Δ after the value": there["written"],
                "follows": there["followed"],
            }
        )
    caption = (
        "What was measured inside, medians over runs that learnt the task. Value on query: the "
        "attention weight of the value's position on the first query, in the first of two "
        "attention layers, at L → 3L. Query on value: that of the final query on the value, in the "
        "last attention layer. Enters at: the position through which the value enters the last "
        "attention layer, or the last layer, as tokens after the value, and how much of it does; "
        "end: the final query's own, where a layer before has already found the value "
        "(interchange attribution, arXiv:2505.15105). Δ after the value: of what Δ rises by around "
        "the query, the part at the value and three tokens after it. Follows: right answers that "
        "follow where the value is exchanged."
    )
    return Table("why", caption, pl.DataFrame(rows))


def _or_nothing(runs: pl.DataFrame, column: str) -> str:
    return middle(runs, column) if runs[column].drop_nulls().len() else ""


def _place(runs: pl.DataFrame, share: str) -> str:
    """The position that most runs have, and the median share of what enters there."""
    places = [
        "end" if after is None else f"{after:+.0f}"
        for after in runs.drop_nulls("entered")["entered_after"]
    ]
    return f"{mode(places)}: {share}" if places else ""


def _pair(there: dict[str, str], name: str) -> str:
    return f"{there[name]} → {there[name + '_3L']}" if there[name] else ""


def measured() -> pl.DataFrame:
    """The rows of the file: address, and the columns of MEASURED."""
    schema = {"address": pl.String} | dict.fromkeys(MEASURED, pl.Float64)
    return pl.read_csv(FILE, schema=schema) if FILE.exists() else pl.DataFrame(schema=schema)
