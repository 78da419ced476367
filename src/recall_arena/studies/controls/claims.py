"""What the controls claim."""

import polars as pl

from recall_arena.claims import HAS_LEARNT, Claim
from recall_arena.rules import Ahead, every_run_learns, in_each
from recall_arena.studies.assignment.claims import LEARNERS, MAMBA, ROPE, TAU, D
from recall_arena.studies.controls.settings import CORNER, NARROW, WIDTH
from recall_arena.zoo import look_of

WITH, WIDE, LITTLE = pl.col("repeats"), D == 64, pl.col("model") == NARROW
HYBRIDS = ("hybrid-a", "hybrid-b")

SHORTCUT = Claim(
    "Does the corner v = q spoil the short contexts?",
    "Yes: of the runs that learnt the task, those of each model that learns it are more accurate "
    "below L, where the value is not the query, if no value was the query in training, at either "
    "delay, for counting the query then earns nothing.",
    pl.any_horizontal(LEARNERS.values()) & (pl.col("M") == 1),
    Ahead(
        "apart_below",
        "v ≠ q alone against v = q too",
        [
            pair
            for tau in (1, 5)
            for pair in in_each(
                {f"{name}, τ = {tau}": own & (tau == TAU) for name, own in LEARNERS.items()},
                ~WITH,
                WITH,
            )
        ],
        among=HAS_LEARNT,
        condition="runs that learnt the task",
    ),
)
STATE = Claim(
    "Does wide Mamba need its state?",
    "Yes: with d = 64 and a state of 2, not 16, numbers a channel it is less accurate at L.",
    WIDE & (MAMBA | LITTLE),
    Ahead("at_L", "16 numbers a channel against 2", [("d = 64", MAMBA & WIDE, LITTLE)]),
)
SAME_STATE = Claim(
    "Does width help Mamba where its scans carry no more?",
    "Yes: with d = 64 and 2 numbers a channel it is more accurate at L than with d = 8 and 16.",
    (pl.col("M") == 16) & (LITTLE | (MAMBA & ~WIDE)),
    Ahead(
        "at_L",
        "d = 64 against d = 8, of scans that carry as many numbers",
        [("M = 16", LITTLE, MAMBA & ~WIDE)],
    ),
)
KEYS = Claim(
    "Does width let the RoPE transformer tell sixteen keys apart?",
    "Yes: with d = 64 it is more accurate at L than with d = 8.",
    ROPE & (pl.col("M") == 16),
    Ahead("at_L", "d = 64 against d = 8", [("M = 16", ROPE & WIDE, ROPE & ~WIDE)]),
)
ATTENDING = Claim(
    "Do models with attention learn all sixteen queries when they are as wide as Mamba?",
    "Yes: with d = 64 every run of the RoPE transformer and of both hybrids learns the task.",
    WIDE & ~MAMBA & ~LITTLE,
    every_run_learns(),
)
SOONER = Claim(
    "Which of the wide models is first?",
    "The hybrids: with d = 64 each needs fewer iterations to 99 % validation accuracy than Mamba.",
    WIDE & (MAMBA | pl.col("model").is_in(HYBRIDS)),
    Ahead(
        "steps_99",
        "Mamba against a hybrid",
        [(look_of(own).label, MAMBA & WIDE, pl.col("model") == own) for own in HYBRIDS],
    ),
)
CLAIMS = {CORNER: (SHORTCUT,), WIDTH: (STATE, SAME_STATE, KEYS, ATTENDING, SOONER)}
