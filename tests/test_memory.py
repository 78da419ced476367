"""What runs need of memory: each of its own, and ten thousand of them in a plan."""

import gc
import tracemalloc
from dataclasses import dataclass, field

import pytest
from torch import nn

from recall_arena.memory import check_memory, least_memory
from recall_arena.mixers import Mamba
from recall_arena.model import named
from recall_arena.runs import Run
from recall_arena.tasks import AssociativeRecall
from recall_arena.training import Schedule


def run(model: str = "mamba", width: int = 8, seed: int = 0) -> Run:
    schedule = Schedule(rate=1e-3, steps=100)
    return Run(AssociativeRecall(), named(model, width=width), schedule, seed=seed)


def test_weights_and_tokens_are_counted() -> None:
    """Mamba's two layers at width 8, four numbers of 4 bytes each, and 1,000 sequences of 65."""
    layer = sum(weight.numel() for weight in Mamba().build(8).parameters())
    tokens = 1000 * 65 + 192 + 1
    assert least_memory(run()) == 16 * (2 * 16 * 8 + 2 * layer) + 8 * tokens


def test_what_cannot_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"the run needs at least .* GiB of memory"):
        check_memory(run(width=1 << 20))


def test_options_that_cannot_be_hashed_are_counted_too(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass
    class Odd:
        sizes: list[int] = field(default_factory=lambda: [3])

        def build(self, width: int) -> nn.Module:
            return nn.Linear(width, self.sizes[0], bias=False)

    ours = run()
    monkeypatch.setattr(type(ours.model), "mixers", property(lambda model: (Odd(),)))
    assert least_memory(ours) == 16 * (2 * 16 * 8 + 3 * 8) + 8 * (1000 * 65 + 192 + 1)


def test_a_plan_of_many_runs_keeps_little_of_each() -> None:
    """2 kB, so that ten thousand take 20 MB beside the 300 that the program itself takes."""

    def checked(seeds: range) -> dict[str, Run]:
        plan = {one.address: one for one in (run(seed=seed) for seed in seeds)}
        for one in plan.values():
            check_memory(one)
        return plan

    checked(range(20))  # what is made once
    gc.collect()
    tracemalloc.start()
    plan = checked(range(20, 120))
    gc.collect()
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 500 < kept / len(plan) < 4_000
