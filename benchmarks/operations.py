"""How fast is each kernel, forward and backward, and how far from what the core allows?

Timed are the output alone, as in evaluation; the forward pass of training, which keeps what
backward needs; the backward pass; and both together, for XLA does better with both in one jit.

Of what ours takes above the floor, some is Python's and autograd's, and some the memory's: so
beside the whole stand the compiled kernel's time alone, and that of a few sequences over and over,
which stay in the core's own cache, as they do within a training step.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from benchmarks import compiling, floors, roofline
from benchmarks.measuring import Builders, Contender, Results, Stage, compare, optional
from benchmarks.options import Options
from benchmarks.ours import arrays
from benchmarks.report import Report
from benchmarks.rows import FLOOR, OURS, Setting
from benchmarks.torch_gated_delta import definition_of_delta, transformers_delta
from benchmarks.torch_mixers import fused_attention, reference_scan
from recall_arena.kernels import (
    causal_attention,
    causal_attention_definition,
    causal_conv,
    causal_conv_definition,
    gated_delta,
    selective_scan,
    selective_scan_definition,
)

PART = "operations"
STATE, WINDOW = 16, 4
IN_CACHE = 128 * 64  # sequences times width times L: a backward scan's tensors take 1/2 to 3/4 MiB


@dataclass(frozen=True)
class Operation:
    """One kernel: what computes it, on what, and the least work that it is.

    eager     PyTorch functions by name, the definition first
    unrolled  whether JAX's function, which has the operation's name, takes `unroll`
    """

    name: str
    ours: Callable[..., Tensor]
    eager: dict[str, Callable[..., Tensor]]
    inputs: dict[str, Tensor]
    work: roofline.Passes
    unrolled: bool = False

    def works(self) -> roofline.Passes:
        """The least work of each stage that is timed."""
        return {"inference": self.work["forward"], **self.work}


def run(options: Options, report: Report) -> None:
    """Every operation at every width and length."""
    widths, lengths = options.widths or (8, 64), options.lengths or (64, 100)
    for width, length in itertools.product(widths, lengths):
        sizes = {"batch": options.batch, "L": length, "d": width}
        for make in (scan, conv, attention, delta):
            operation = make(options.batch, length, width)
            if not options.asks(operation.name):
                continue
            setting = Setting(PART, operation.name, sizes)
            rows = compare(setting, builders(operation, options, report), options, report)
            few = max(1, min(options.batch, IN_CACHE // (width * length)))
            cached = in_cache(make(few, length, width), replace(options, threads=1))
            floors.add(setting, operation.works(), rows, options, report, cached)


def in_cache(few: Operation, options: Options) -> dict[str, floors.Figures]:
    """By stage, how many times its floor the kernel takes for a few sequences, over and over.

    They are too few for a second thread.
    """
    setting = Setting(PART, few.name, {"batch": len(next(iter(few.inputs.values())))})
    report = Report(options.threads)
    alone = compare(setting, {OURS: builders(few, options, report)[OURS]}, options, report)
    floors.add(setting, few.works(), alone, options, report)
    bounds = [row for row in report.rows if row.contender == FLOOR]
    return {
        row.stage: {"in cache / floor": row.figures["kernel / floor"]}
        for row in bounds
        if "kernel / floor" in row.figures
    }


def scan(batch: int, length: int, width: int) -> Operation:
    """The selective scan as in a fresh Mamba block of this width."""
    generator = torch.Generator().manual_seed(0)
    channels = 2 * width
    normal = partial(_normal, generator)
    steps = torch.rand(channels, generator=generator).mul(4.6).sub(6.9).exp()  # 1e-3 to 1e-1
    inputs = {
        "u": normal(batch, length, channels),
        "delta": normal(batch, length, channels),
        "A": (-torch.arange(1.0, STATE + 1).repeat(channels, 1)).requires_grad_(),
        "B": normal(batch, length, STATE),
        "C": normal(batch, length, STATE),
        "D": torch.ones(channels, requires_grad=True),
        "z": normal(batch, length, channels),
        "delta_bias": steps.expm1().log().requires_grad_(),
    }
    definition = {
        "recall-arena, definition": selective_scan_definition,
        "mamba-ssm's reference loop, transcribed": reference_scan,
    }
    work = roofline.scan_work(batch, length, channels, STATE)
    return Operation("selective_scan", selective_scan, definition, inputs, work, unrolled=True)


def conv(batch: int, length: int, width: int) -> Operation:
    """The causal convolution as in a Mamba block of this width."""
    generator = torch.Generator().manual_seed(0)
    channels = 2 * width
    inputs = {
        "x": _normal(generator, batch, length, channels),
        "weight": _normal(generator, channels, WINDOW),
        "bias": _normal(generator, channels),
    }
    definition = {"recall-arena, definition": causal_conv_definition}
    work = roofline.conv_work(batch, length, channels, WINDOW)
    return Operation("causal_conv", causal_conv, definition, inputs, work)


def attention(batch: int, length: int, width: int) -> Operation:
    """Causal attention with one head as wide as the model."""
    generator = torch.Generator().manual_seed(0)
    inputs = {name: _normal(generator, batch, 1, length, width) for name in ("q", "k", "v")}
    eager = {
        "PyTorch, softmax of products": causal_attention_definition,
        "PyTorch, scaled_dot_product_attention": fused_attention,
    }
    work = roofline.attention_work(batch, 1, length, width)
    return Operation("causal_attention", causal_attention, eager, inputs, work)


def delta(batch: int, length: int, width: int) -> Operation:
    """The gated delta rule as in a fresh mixer of this width: one head, values twice as wide."""
    generator = torch.Generator().manual_seed(0)
    shape = (batch, length, 1)
    rates = 16 * torch.rand(*shape, generator=generator)
    steps = torch.rand(*shape, generator=generator).mul(4.6).sub(6.9).exp()  # 1e-3 to 1e-1
    inputs = {
        "q": _normal(generator, *shape, width),
        "k": _normal(generator, *shape, width),
        "v": _normal(generator, *shape, 2 * width),
        "g": (-rates * steps).requires_grad_(),
        "beta": torch.rand(*shape, generator=generator).requires_grad_(),
    }

    def ours(q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor) -> Tensor:
        return gated_delta(q, k, v, g, beta, normalised=True)[0]

    eager = {
        "recall-arena, definition": definition_of_delta,
        "transformers, chunks": transformers_delta(chunked=True),
        "transformers, step by step": transformers_delta(chunked=False),
    }
    work = roofline.gated_delta_work(batch, length, 1, width, 2 * width)
    return Operation("gated_delta", ours, eager, inputs, work, unrolled=True)


def _normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, requires_grad=True)


def builders(operation: Operation, options: Options, report: Report) -> Builders:
    """The operation's contenders."""
    inputs = operation.inputs
    with torch.no_grad():
        shape = operation.ours(*inputs.values()).shape
    arriving = torch.randn(shape, generator=torch.Generator().manual_seed(1))

    def compiled() -> Contender:
        function = compiling.compiled(next(iter(operation.eager.values())))
        made = contender("torch.compile of the definition", function, inputs, arriving)
        return compiling.within(options.compile_limit, made)

    def in_jax() -> Contender:
        with optional():
            from benchmarks import jax_contenders, jax_operations

        function = jax_operations.OPERATIONS[operation.name]
        if not operation.unrolled:
            return jax_contenders.operation("JAX", function, inputs, arriving)

        def unrolled(unroll: int) -> Contender:
            given = partial(function, unroll=unroll)
            return jax_contenders.together(f"JAX, unroll {unroll}", given, inputs, arriving)

        best, unroll = jax_contenders.best_unroll(unrolled, report)
        given = partial(function, unroll=unroll)
        return jax_contenders.operation(best.name, given, inputs, arriving)

    made: Builders = {
        OURS: lambda: contender(OURS, operation.ours, inputs, arriving),
        "JAX": in_jax,
    }
    for name, function in operation.eager.items():
        made[name] = partial(contender, name, function, inputs, arriving)
    if options.compile_limit > 0:
        made["torch.compile"] = compiled
    return made


def contender(
    name: str, function: Callable[..., Tensor], inputs: dict[str, Tensor], arriving: Tensor
) -> Contender:
    """A PyTorch function without gradients, its two passes apart, and both."""
    given = list(inputs.values())

    def forward(_: object = None) -> Tensor:
        return function(*given)

    def backward(out: Tensor) -> Sequence[Tensor]:
        return torch.autograd.grad(out, given, arriving)

    def results() -> Results:
        out = forward()
        return arrays({"output": out, **dict(zip(inputs, backward(out), strict=True))})

    chains: list[dict[str, Stage]] = [
        {"inference": torch.inference_mode()(forward)},
        {"forward": forward, "backward": backward},
        {"forward and backward": lambda _: backward(forward())},
    ]
    return Contender(name, results, chains)
