"""One measurement of `long`, in a process of its own: time and peak memory of a forward pass.

The process gets a Request as JSON, its one argument, and prints a Pass as JSON.
"""

import json
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks import machine, ours
from benchmarks.measuring import Unavailable, optional
from benchmarks.rows import OURS
from benchmarks.torch_mixers import eager
from benchmarks.torch_models import EagerModel
from recall_arena.model import SequenceModel, named
from recall_arena.seeds import generator

WIDTH = 64
SPEC = named("mamba", vocabulary=16, width=WIDTH)
MIB = 1 << 20

TRIED = 1024  # tokens on which a contender warms up and chooses its mode

Forward = Callable[[Tensor], np.ndarray]
"""Tokens (1, length) to the logits after the last one."""


@dataclass(frozen=True)
class Request:
    """Who is measured, on how many tokens, and how: see `Options`."""

    name: str
    length: int
    threads: int
    rounds: int
    patience: float


@dataclass(frozen=True)
class Pass:
    """What was measured.

    mebibytes  what the first pass took at most beyond what was held before
    figures    what else to tell, such as the seconds that compiling took
    """

    logits: list[float]
    seconds: list[float]
    cores: float
    mebibytes: float
    figures: dict[str, float]


def _ours(model: nn.Module, length: int) -> tuple[Forward, dict[str, float]]:
    logits = ours.logits(model)
    return lambda tokens: logits(tokens).numpy(), {}


def _eager(model: SequenceModel, length: int) -> tuple[Forward, dict[str, float]]:
    return _ours(EagerModel(SPEC, eager(), model.state_dict()), length)


def _jax(model: SequenceModel, length: int) -> tuple[Forward, dict[str, float]]:
    with optional():
        from benchmarks import jax_contenders, jax_training

    def compiled(unroll: int, length: int) -> tuple[Forward, float]:
        converted, weights = jax_training.converted(SPEC, model, unroll)
        array = jax_contenders.array
        run, seconds = jax_contenders.compiled(converted.logits, weights, array(_zeros(length)))
        return lambda tokens: np.asarray(run(weights, array(tokens))), seconds

    def seconds(unroll: int) -> float:
        forward, _ = compiled(unroll, TRIED)
        return min(_seconds(forward, _zeros(TRIED)) for _ in range(3))

    unroll = min(jax_contenders.UNROLLS, key=seconds)
    forward, compiling = compiled(unroll, length)
    return forward, {"unroll": unroll, "compile s": compiling}


CONTENDERS: dict[str, Callable[[SequenceModel, int], tuple[Forward, dict[str, float]]]] = {
    OURS: _ours,
    "JAX": _jax,
    "PyTorch, eager": _eager,
}
"""Ours comes first; each makes its forward pass for a length, and what there is to tell of it."""


def _zeros(length: int) -> Tensor:
    return torch.zeros(1, length, dtype=torch.int64)


def _seconds(forward: Forward, tokens: Tensor) -> float:
    start = time.perf_counter()
    forward(tokens)
    return time.perf_counter() - start


def measured(name: str, length: int, rounds: int, patience: float) -> Pass:
    """One pass after another until `rounds` or `patience` seconds are spent.

    Raises Unavailable if a package is missing.
    """
    model = ours.fresh(SPEC)
    tokens = torch.randint(SPEC.vocabulary, (1, length), generator=generator("benchmark", length))
    forward, figures = CONTENDERS[name](model, length)
    if name != "JAX":  # which is compiled for one length, and has been tried on another
        forward(_zeros(TRIED))  # what a library needs for itself is not this pass's memory

    held, busy = restart_peak(), time.process_time()
    seconds: list[float] = []
    mebibytes, logits = 0.0, np.zeros(0)
    while not seconds or (len(seconds) < rounds and sum(seconds) < patience):
        start = time.perf_counter()
        logits = forward(tokens)
        seconds.append(time.perf_counter() - start)
        if len(seconds) == 1:
            mebibytes = (peak() - held) / MIB
    cores = (time.process_time() - busy) / sum(seconds)
    return Pass(logits.ravel().tolist(), seconds, cores, mebibytes, figures)


def restart_peak() -> int:
    """Forget the peak where the system can, and return the bytes held now.

    Linux can.  There `getrusage` would mislead: its peak may be that of the process that
    started this one.
    """
    if sys.platform != "linux":
        return peak()
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def peak() -> int:
    """The most bytes that this process has held since the peak was forgotten."""
    if sys.platform == "linux":
        return _status("VmHWM")
    bytes_each = 1 if sys.platform == "darwin" else 1024
    return bytes_each * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    line = next(line for line in lines if line.startswith(f"{name}:"))
    return 1024 * int(line.split()[1])


def main() -> None:
    asked = Request(**json.loads(sys.argv[1]))
    machine.confine(asked.threads)
    try:
        done = measured(asked.name, asked.length, asked.rounds, asked.patience)
    except Unavailable as reason:
        sys.exit(str(reason))
    print(json.dumps(asdict(done)))


if __name__ == "__main__":
    main()
