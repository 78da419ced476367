"""What runs need of memory: each of its own, and ten thousand of them in a plan."""

import gc
import subprocess
import sys
import tracemalloc
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from torch import nn

from recall_arena.memory import _counted, check_memory, least_memory
from recall_arena.mixers import Mamba
from recall_arena.model import named
from recall_arena.runs import Run
from recall_arena.tasks import AssociativeRecall
from recall_arena.training import Schedule


def run(model: str = "mamba", width: int = 8, seed: int = 0) -> Run:
    schedule = Schedule(rate=1e-3, steps=100)
    return Run(AssociativeRecall(), named(model, width=width), schedule, seed=seed)


def test_weights_and_tokens_are_counted() -> None:
    """Mamba's two layers and the readout at width 8, four numbers of 4 bytes each, an embedding
    that is not trained, and 1,000 sequences of 65."""
    layer = sum(weight.numel() for weight in Mamba().build(8).parameters())
    tokens = 1000 * 65 + 192 + 1
    assert least_memory(run()) == 16 * (16 * 8 + 2 * layer) + 4 * 16 * 8 + 8 * tokens


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
    assert least_memory(ours) == 16 * (16 * 8 + 3 * 8) + 4 * 16 * 8 + 8 * (1000 * 65 + 192 + 1)


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


TRAINED = """
import sys
from recall_arena.cli import main

words = "train --schedule.steps 2 --contexts 8 --checks.sequences 8 --contexts.sequences 8 --quiet"
code = main([*words.split(), *sys.argv[1:]])
sys.exit(code or ("torch._dynamo" in sys.modules and "PyTorch's compiler was imported"))
"""


@pytest.mark.parametrize("model", ["mamba", "attention-rope", "gated-delta"])
def test_a_run_does_without_the_compiler_whose_import_takes_seconds(
    model: str, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", TRAINED, "--model", model, "--store", str(tmp_path / "runs")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_large_mixers_are_counted_without_memory_and_small_ones_leave_random_numbers_alone() -> (
    None
):
    layer = Mamba(state=300)
    before = torch.random.get_rng_state()
    for options in (layer, Mamba()):
        assert _counted(options, 8) == sum(w.numel() for w in options.build(8).parameters())
        torch.random.set_rng_state(before)
        _counted(options, 8)
        assert torch.equal(torch.random.get_rng_state(), before)
    assert _counted(Mamba(state=10**12), 8) > 10**13
