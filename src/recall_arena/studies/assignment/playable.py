"""The trained models that the assignment's page runs: those of Problem 1 with a delay of one."""

import polars as pl

from recall_arena.studies.assignment.scales import CONTEXT
from recall_arena.studies.assignment.settings import VOCABULARY
from recall_arena.studies.study import Playable
from recall_arena.zoo import ZOO


def playable(frame: pl.DataFrame) -> list[Playable]:
    """The six models with d = 8 on the induction head, each with its runs of any scale.

    Those of the newest revision and the largest budget come first, then in the order of seeds.
    """
    task = {"task": "associative-recall", "K": VOCABULARY, "M": 1, "tau": 1, "L": CONTEXT}
    task |= {"repeats": True}
    alone = pl.all_horizontal(pl.col("shortest", "distance", "extends").is_null())
    trained = pl.col("ended_by") != "diverged"
    runs = frame.filter(alone & trained, kind="run", d=8, **task)
    runs = runs.sort("revision", "budget", "seed", "address", descending=[True, True, False, False])
    return [
        Playable(look.label, look.colour, tuple(runs.filter(model=name)["address"]))
        for name, look in ZOO.items()
    ]
