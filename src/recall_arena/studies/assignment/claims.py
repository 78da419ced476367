"""The assignment's eighteen questions, with hypotheses that its runs can refute."""

import polars as pl

from recall_arena.claims import HAS_LEARNT, Claim
from recall_arena.rules import Ahead, Every, Harder, in_each
from recall_arena.studies.assignment.scales import PROBLEMS
from recall_arena.studies.assignment.settings import QUERIES
from recall_arena.wording import limit
from recall_arena.zoo import ZOO, look_of

CARRIES = 0.9
"""The accuracy over other lengths from which what was learnt counts as carrying to them."""

TOLD_APART = 0.75
"""The share of queries that are known or unknown from which a run learns one at a time."""

BY_QUERIES = {f"M = {m}": pl.col("M") == m for m in QUERIES}
BY_MODEL = {look.label: pl.col("model") == name for name, look in ZOO.items()}
PROBLEM, TAU, D = (pl.col(name) for name in ("problem", "tau", "d"))
RECURRENT = pl.col("recurrent")
ROPE, MAMBA = BY_MODEL["Transformer (RoPE)"], BY_MODEL["Mamba"]
HYBRID_A = BY_MODEL["Hybrid-A"]
LEARNERS = {
    name: own
    for name, own in BY_MODEL.items()
    if name not in ("Transformer (learned)", "Transformer (NoPE)")
}
"""The models of which most seeds learn the induction head within the budget."""


def carries_beyond(tau: int) -> Claim:
    """Whether a Mamba layer keeps more beyond L than a transformer with RoPE does."""
    return Claim(
        f"Which models keep their accuracy beyond the training length, with delay {tau}?",
        "Those with a Mamba layer (Gu & Dao 2023, Table 2): of the runs that learnt the task, each "
        "such model's are more accurate over the lengths from L + 1 to 3L than the RoPE "
        "transformer's.",
        (PROBLEM == 1) & (tau == TAU),
        Ahead(
            "beyond",
            "with a Mamba layer against RoPE",
            [(name, BY_MODEL[name], ROPE) for name in ("Mamba", "Hybrid-A", "Hybrid-B")],
            among=HAS_LEARNT,
            condition="runs that learnt the task",
        ),
    )


def only_with_mamba(where: str, about: pl.Expr) -> Claim:
    """Whether just the models with a Mamba layer stay accurate beyond the training length."""
    return Claim(
        f"Which models keep their accuracy beyond the training length, {where}?",
        "Those with a Mamba layer do and those without do not (Gu & Dao 2023, Table 2): of the "
        "runs that learnt the task, each with a Mamba layer, and none without, has at least "
        f"{limit(CARRIES)} over the lengths from L + 1 to 3L.",
        about,
        Every(
            measure="beyond",
            passes=(pl.col("beyond") >= CARRIES) == RECURRENT,
            threshold=f"at least {limit(CARRIES)} with a Mamba layer, less without",
            among=HAS_LEARNT,
            condition="runs that learnt the task",
            kinds="recurrent",
        ),
    )


def carries_below(tau: int) -> Claim:
    """Whether what is learnt at L also works at the shorter lengths."""
    return Claim(
        f"Does what is learnt at L work at shorter contexts, with delay {tau}?",
        f"Yes: every run that learnt the task has at least {limit(CARRIES)} over the lengths "
        "below L, for fewer tokens hold fewer distractors.",
        (PROBLEM == 1) & (tau == TAU),
        Every(
            measure="below",
            passes=pl.col("below") >= CARRIES,
            threshold=f"at least {limit(CARRIES)}",
            among=HAS_LEARNT,
            condition="runs that learnt the task",
        ),
    )


def falls_with_queries(model: str, d: int) -> Claim:
    """Whether a model's accuracy at L falls as more queries are asked for."""
    return Claim(
        f"How does {look_of(model).label} (d = {d}) cope with more queries?",
        "The more queries, the lower its test accuracy at L.",
        (PROBLEM > 1) & (pl.col("model") == model) & (d == D) & (TAU == 1),
        Harder("M"),
    )


def converges_faster(tau: int) -> Claim:
    """Whether the hybrid of one layer of each converges before both of its parents."""
    return Claim(
        f"Which models converge faster during training, with delay {tau}?",
        "Hybrid-A, whose convolution looks back where attention has to learn to: it reaches 99 % "
        "validation accuracy in fewer iterations than Mamba and than the RoPE transformer.",
        (PROBLEM == 1) & (tau == TAU),
        Ahead(
            "steps_99",
            "parent against Hybrid-A",
            [(name, BY_MODEL[name], HYBRID_A) for name in ("Mamba", "Transformer (RoPE)")],
        ),
    )


DELAY = Claim(
    "What is the impact of a delay of five?",
    "It makes the task harder for each model that learns it, RoPE, Mamba and both hybrids: more "
    "iterations to 99 % validation accuracy.",
    PROBLEM == 1,
    Ahead("steps_99", "τ = 5 against τ = 1", in_each(LEARNERS, TAU == 5, TAU == 1)),
)
ONE_AT_A_TIME = Claim(
    "Does Mamba learn all queries together?",
    "No, one at a time: in every run, on the way up, most queries are either known or not.",
    (PROBLEM == 2) & MAMBA,
    Every(
        measure="told_apart",
        passes=pl.col("told_apart") >= TOLD_APART,
        threshold=f"at least {limit(TOLD_APART)}",
        among=pl.col("told_apart").is_not_null(),
        condition="runs seen on the way up",
    ),
)
ATTENTION = Claim(
    "How does the transformer compare with Mamba?",
    "At every M the RoPE transformer is more accurate at L than Mamba of the same width: it looks "
    "the value up, where Mamba must keep all of them in its state.",
    (PROBLEM == 2) & (ROPE | MAMBA),
    Ahead(
        "at_L",
        "RoPE transformer against Mamba",
        in_each(BY_QUERIES, ROPE, MAMBA),
    ),
)
HYBRIDS = Claim(
    "Do hybrids improve on both?",
    "Yes: at every M each hybrid is more accurate at L than Mamba and than the RoPE transformer.",
    PROBLEM == 2,
    Ahead(
        "at_L",
        "hybrid against parent",
        [
            pair
            for hybrid in ("Hybrid-A", "Hybrid-B")
            for parent in ("Mamba", "Transformer (RoPE)")
            for pair in in_each(
                BY_QUERIES, BY_MODEL[hybrid], BY_MODEL[parent], f"{hybrid} against {parent}, "
            )
        ],
    ),
)
WIDE = Claim(
    "How does the embedding dimension impact Mamba's results?",
    "d = 64 makes Mamba more accurate at L than d = 8 at every M: it has eight times the state.",
    MAMBA & (PROBLEM > 1) & (TAU == 1),
    Ahead("at_L", "d = 64 against d = 8", in_each(BY_QUERIES, D == 64, D == 8)),
)
LATE = Claim(
    "Does a delay of ten change anything for Mamba (M = 16, d = 64)?",
    "Yes, it is harder, and less accurate at L: the short convolutions of two layers reach back "
    "six tokens together, so the scan itself must carry the query over the gap.",
    (PROBLEM == 3) & (pl.col("M") == 16),
    Ahead("at_L", "τ = 1 against τ = 10", [("M = 16", TAU == 1, TAU == 10)]),
)

BY_BULLET = {
    "p1-1": (carries_beyond(1), carries_below(1)),
    "p1-2": (carries_beyond(5), carries_below(5), DELAY),
    "p1-3": (converges_faster(1), converges_faster(5)),
    "p2-1": (falls_with_queries("mamba", d=8), ONE_AT_A_TIME),
    "p2-2": (falls_with_queries("transformer-rope", d=8), ATTENTION),
    "p2-3": (
        *(falls_with_queries(hybrid, d=8) for hybrid in ("hybrid-a", "hybrid-b")),
        HYBRIDS,
        only_with_mamba("with more queries", PROBLEM == 2),
    ),
    "p3-1": (falls_with_queries("mamba", d=64), WIDE),
    "p3-2": (LATE,),
}
"""The claims that answer each bullet of the assignment, in its order."""


def problem_of(bullet: str) -> int:
    """The number of the problem that a bullet is of: 2 for "p2-1"."""
    return int(bullet[1])


CLAIMS = {
    part: tuple(
        claim for name, own in BY_BULLET.items() if problem_of(name) == part for claim in own
    )
    for part in PROBLEMS
}
"""Those of each problem."""

ALL = tuple(claim for claims in CLAIMS.values() for claim in claims)
