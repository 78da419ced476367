"""Beyond the assignment: every length up to L is trained, and not L alone.

"We will train these models up to context length L" can be read so; step 1 of the recipe says
exactly L.  Scale `mixed` trains every setting this way, at rates of its own search; the claims here
set its runs against those of the recipe.  They were written before the runs that judge them.
"""

import polars as pl

from recall_arena.claims import HAS_LEARNT, Claim
from recall_arena.rules import Ahead, Every, in_each
from recall_arena.studies.assignment.claims import LEARNERS, PROBLEM, ROPE, TAU

MIXED = pl.col("shortest").is_not_null()
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
    Every(
        measure="at_L",
        passes=HAS_LEARNT,
        threshold="at least 99 % at L where the value is not the query",
        among=MIXED,
        condition="runs with mixed lengths",
    ),
)
CLAIMS = (SHORT, SOONER, FURTHER, EVERY_QUERY)
