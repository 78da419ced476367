"""Where a run's tensors are: names, refusals, and definitions that mix no two devices."""

from pathlib import Path

import pytest
import torch
from conftest import recall
from training_checks import same

from recall_arena.compiled import Compiled
from recall_arena.devices import DEVICES, brought, device_named
from recall_arena.evaluation import Contexts
from recall_arena.execution import Execution
from recall_arena.executors.work import Work
from recall_arena.model import SequenceModel, named
from recall_arena.records import Store
from recall_arena.runs import Run
from recall_arena.tasks import AssociativeRecall
from recall_arena.training import Schedule
from recall_arena.zoo import ZOO

ACCELERATED = torch.accelerator.is_available()
MODELS = (
    *ZOO,
    "attention(positions=xpos), gated-delta; norm=rms; mlp=swiglu",
    "mamba(window=1), attention(q_window=4, k_window=4, v_window=4, bias=True)",
    "attention, kda; positions=sinusoidal",
)
ELSEWHERE = torch.device("meta")
"""A device without numbers: what computes there with a tensor of the processor raises."""


def run() -> Run:
    return Run(
        task=AssociativeRecall(),
        model=named("hybrid-a", width=8),
        schedule=Schedule(rate=1e-2, steps=20, context=16, batch=8),
        contexts=Contexts(first=16, last=16, sequences=100),
    )


def executed(device: str) -> Execution:
    execution = Execution(run(), device)
    for _ in execution:
        pass
    return execution


def test_a_device_that_nobody_knows_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ValueError, match=r"no device 'cdua'.*cuda"):
        device_named("cdua")


@pytest.mark.skipif(ACCELERATED, reason="there is an accelerator here")
@pytest.mark.parametrize("name", [name for name in DEVICES if name not in ("auto", "cpu")])
def test_a_device_that_is_not_there_is_refused_before_anything_runs(name: str) -> None:
    with pytest.raises(ValueError, match=f"there is no {name} device here"):
        Execution(run(), name)


@pytest.mark.skipif(ACCELERATED, reason="there is an accelerator here")
def test_the_command_says_in_a_line_that_a_device_is_not_there(tmp_path: Path) -> None:
    done = recall("train", "--device", "cuda", cwd=tmp_path)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "there is no cuda device here" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(ACCELERATED, reason="there is an accelerator here")
def test_without_an_accelerator_auto_is_the_processor_to_the_last_bit() -> None:
    assert same(executed("auto").record(), executed("cpu").record())


@pytest.mark.parametrize("text", MODELS)
def test_the_definitions_compute_where_the_model_is(text: str) -> None:
    model = SequenceModel(named(text, width=8, longest_context=32)).to(ELSEWHERE)
    tokens = torch.zeros(2, 17, dtype=torch.int64, device=ELSEWHERE)
    compiled = Compiled(model)
    assert compiled.logits(tokens).device == ELSEWHERE
    assert compiled.logits(tokens, tokens[:, :3]).shape == (2, 3, 16)
    assert compiled.loss_and_gradient(tokens, tokens[:, 0]).device == ELSEWHERE
    slopes = [weight.grad for weight in model.parameters() if weight.requires_grad]
    assert all(slope is not None and slope.device == ELSEWHERE for slope in slopes)


def test_what_goes_in_is_brought_there_and_what_comes_out_back() -> None:
    seen: list[torch.device] = []

    def function(x: torch.Tensor) -> torch.Tensor:
        seen.append(x.device)
        return torch.zeros(3)

    assert brought(function, torch.device("cpu")) is function
    assert brought(function, ELSEWHERE)(torch.zeros(3)).device.type == "cpu"
    assert seen == [ELSEWHERE]


@pytest.mark.skipif(not ACCELERATED, reason="no accelerator here")
def test_an_accelerator_trains_and_says_so() -> None:
    """The losses of its first checks are those of the processor, up to rounding."""
    there, here = executed("auto"), executed("cpu")
    ours, theirs = there.record(), here.record()
    assert ours.provenance.kernels == f"definitions, {there.device.type}"
    assert ours.outcome.losses == pytest.approx(theirs.outcome.losses, rel=1e-4)
    assert all(tensor.device == there.device for tensor in there.state().tensors.values())


def test_a_run_on_a_gpu_of_a_cluster_asks_for_one(tmp_path: Path) -> None:
    needs = [Work(Store(tmp_path), device=name).gpus for name in DEVICES]
    assert dict(zip(DEVICES, needs, strict=True)) == {"auto": 0, "cpu": 0, "cuda": 1, "mps": 0}
    with pytest.raises(ValueError, match="no device 'gpu'"):
        Work(Store(tmp_path), device="gpu")
