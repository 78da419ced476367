"""How fast is one Mamba block, forward and backward, beside other people's on the same CPU?

    python -m benchmarks.block                      about two minutes
    python -m benchmarks.block --rounds 3 --widths 8 --lengths 64

All contenders get the same weights and the same input.  Each must first agree with
recall-arena in its output and in every gradient; one that does not is not timed.  They take
turns round by round, so that a busy moment of the machine hits all of them alike.
"""

import argparse
import logging
import platform
import statistics
import time
from pathlib import Path
from unittest import mock

import torch
from mambapy.mamba import MambaBlock
from mambapy.mamba import MambaConfig as MambapyConfig
from torch import Tensor, nn
from transformers import MambaConfig as TransformersConfig
from transformers.models.mamba.modeling_mamba import MambaMixer

from recall_arena.kernels import causal_conv_definition, native, selective_scan_definition
from recall_arena.mixers import Mamba, mamba

OURS = "recall-arena"
TOLERANCE = 1e-4  # of the largest number: far above what float32 rounds, far below any mistake


class MambaByDefinition(Mamba):
    """Our block on the PyTorch definitions, as it runs where there is no compiler."""

    def forward(self, x: Tensor) -> Tensor:
        with (
            mock.patch.object(mamba, "causal_conv", causal_conv_definition),
            mock.patch.object(mamba, "selective_scan", selective_scan_definition),
        ):
            return super().forward(x)


def contenders(width: int) -> dict[str, nn.Module]:
    """The blocks by name, all with the weights of ours."""

    def transformers_mixer(use_mambapy: bool) -> nn.Module:
        config = TransformersConfig(
            hidden_size=width, state_size=16, num_hidden_layers=1, use_mambapy=use_mambapy
        )
        return MambaMixer(config, layer_idx=0)

    torch.manual_seed(0)
    blocks: dict[str, nn.Module] = {
        OURS: Mamba(width),
        "recall-arena, definition": MambaByDefinition(width),
        "mambapy, pscan": MambaBlock(MambapyConfig(d_model=width, n_layers=1, pscan=True)),
        "transformers, mambapy": transformers_mixer(use_mambapy=True),
        "transformers, eager": transformers_mixer(use_mambapy=False),
    }
    for block in blocks.values():
        block.load_state_dict(blocks[OURS].state_dict(), strict=True)
    return blocks


def step(block: nn.Module, x: Tensor, arriving: Tensor) -> dict[str, Tensor]:
    """What is timed: the output, then the gradients of the input and of all parameters."""
    wanted = {"x": x, **dict(block.named_parameters())}
    out = block(x)
    gradients = torch.autograd.grad(out, list(wanted.values()), arriving)
    return {"output": out, **dict(zip(wanted, gradients, strict=True))}


def difference(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """The largest difference, relative to the largest number of the tensor that it is in."""
    errors = [
        ((actual[name] - wanted).abs().max() / wanted.abs().max()).item()
        for name, wanted in expected.items()
    ]
    return max(errors, key=lambda error: (error != error, error))  # nan counts as the largest


def agreeing(blocks: dict[str, nn.Module], x: Tensor, arriving: Tensor) -> dict[str, nn.Module]:
    """The blocks that compute what ours computes; prints by how much each one differs."""
    expected = step(blocks[OURS], x, arriving)
    agreed = {}
    for name, block in blocks.items():
        error = difference(step(block, x, arriving), expected)
        verdict = "agrees" if error <= TOLERANCE else "DISAGREES and is not timed"
        print(f"  {name}: {verdict}, largest relative difference {error:.1e}")
        if error <= TOLERANCE:
            agreed[name] = block
    return agreed


def milliseconds(
    blocks: dict[str, nn.Module], x: Tensor, arriving: Tensor, rounds: int
) -> dict[str, list[float]]:
    """The time of each step, the blocks taking turns; a first round warms up and is dropped."""
    times: dict[str, list[float]] = {name: [] for name in blocks}
    for round_ in range(rounds + 1):
        for name, block in blocks.items():
            start = time.perf_counter()
            step(block, x, arriving)
            if round_:
                times[name].append(1e3 * (time.perf_counter() - start))
    return times


def rows(times: dict[str, list[float]], batch: int, length: int, width: int) -> list[str]:
    """One line of the table for each block."""
    fastest = statistics.median(times[OURS])
    lines = []
    for name, sample in times.items():
        low, middle, high = statistics.quantiles(sample, n=4, method="inclusive")
        lines.append(
            f"| {batch} | {length} | {width} | {name} | {middle:.2f} | {low:.2f}-{high:.2f} "
            f"| {middle / fastest:.1f} |"
        )
    return lines


def processor() -> str:
    """The processor's name, where the system tells it."""
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text().splitlines() if facts.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def table(arguments: argparse.Namespace) -> list[str]:
    """Measure every shape, and return the table's lines."""
    lines = [
        "| batch | L | d | block | median ms | quartiles ms | times ours |",
        "|--:|--:|--:|:--|--:|--:|--:|",
    ]
    batch = arguments.batch
    for width in arguments.widths:
        for length in arguments.lengths:
            print(f"batch {batch}, L = {length}, d = {width}")
            x = torch.randn(batch, length, width, requires_grad=True)
            arriving = torch.randn(batch, length, width)
            blocks = agreeing(contenders(width), x, arriving)
            times = milliseconds(blocks, x, arriving, arguments.rounds)
            lines += rows(times, batch, length, width)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15, help="timed steps of each block")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lengths", type=int, nargs="+", default=[64, 100])
    parser.add_argument("--widths", type=int, nargs="+", default=[8, 64])
    arguments = parser.parse_args()
    if arguments.rounds < 2:
        parser.error(f"quartiles need at least 2 rounds, got {arguments.rounds}")

    logging.getLogger("transformers").setLevel(logging.ERROR)  # its advice to install CUDA kernels
    torch.set_num_threads(arguments.threads)
    lines = table(arguments)
    print(
        f"\nOne Mamba block, forward and backward, float32, {arguments.threads} thread(s), "
        f"median of {arguments.rounds} rounds.\n{processor()}; kernels: {native.describe()}; "
        f"torch {torch.__version__}.\n"
    )
    print("\n".join(lines))


if __name__ == "__main__":
    main()
