"""How fast is one block, forward and backward, beside other people's?

A Mamba block against mambapy's, transformers' and JAX's; an attention block, also with
convolutions (CAT, arXiv:2407.05591), against eager PyTorch and JAX; one of the gated delta rule
against what transformers computes for it.
"""

import itertools
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks import compiling
from benchmarks.measuring import Builders, Contender, Results, compare, optional
from benchmarks.options import Options
from benchmarks.ours import arrays, fresh_mixer
from benchmarks.report import Report
from benchmarks.rows import OURS, Setting
from benchmarks.torch_gated_delta import PlainGatedDelta, definition_of_delta, transformers_delta
from benchmarks.torch_mixers import (
    Attend,
    PlainMamba,
    eager,
    fused_attention,
    mambapy_block,
)
from recall_arena.kernels import causal_attention_definition, selective_scan_definition

PART = "block"
CAT = "attention(q_window=4, k_window=4, v_window=4)"


def run(options: Options, report: Report) -> None:
    """Each kind of block at every width and length."""
    widths, lengths = options.widths or (8, 64), options.lengths or (64, 100)
    for width, length in itertools.product(widths, lengths):
        generator = torch.Generator().manual_seed(0)
        shape = (options.batch, length, width)
        x = torch.randn(*shape, generator=generator, requires_grad=True)
        arriving = torch.randn(*shape, generator=generator)
        sizes = {"batch": options.batch, "L": length, "d": width}
        for subject, made in (
            ("mamba", mamba_builders(x, arriving, options, report)),
            ("mamba(window=1)", without_convolution(x, arriving, report)),
            ("attention", attention_builders(x, arriving, "attention")),
            ("attention-rope", attention_builders(x, arriving, "attention-rope")),
            (CAT, attention_builders(x, arriving, CAT)),
            ("gated-delta", gated_delta_builders(x, arriving)),
        ):
            if options.asks(subject):
                compare(Setting(PART, subject, sizes), made, options, report)


def mamba_builders(x: Tensor, arriving: Tensor, options: Options, report: Report) -> Builders:
    """The Mamba blocks, all with the weights of ours."""
    width = x.shape[2]
    ours = fresh_mixer("mamba", width)

    def torch_block(name: str, make: Callable[[], nn.Module]) -> Contender:
        block = make()
        block.load_state_dict(ours.state_dict(), strict=True)
        return contender(name, block, x, arriving)

    def by_definition() -> nn.Module:
        return PlainMamba(width, selective_scan_definition)

    def compiled() -> Contender:
        name, block = "torch.compile of the definition", by_definition()
        block.load_state_dict(ours.state_dict(), strict=True)
        function = compiling.compiled(block)
        made = contender(name, block, x, arriving, function)
        return compiling.within(options.compile_limit, made)

    made: Builders = {
        OURS: lambda: contender(OURS, ours, x, arriving),
        "JAX": lambda: mamba_in_jax(ours, x, arriving, report),
    }
    others: dict[str, Callable[[], nn.Module]] = {
        "recall-arena, definition": by_definition,
        "mambapy, pscan": lambda: mambapy_block(width),
        "mambapy, loop": lambda: mambapy_block(width, pscan=False),
        "transformers, mambapy": lambda: transformers_block(width, use_mambapy=True),
        "transformers, eager": lambda: transformers_block(width, use_mambapy=False),
    }
    made |= {name: partial(torch_block, name, make) for name, make in others.items()}
    return made | {"torch.compile": compiled} if options.compile_block else made


def mamba_in_jax(ours: nn.Module, x: Tensor, arriving: Tensor, report: Report) -> Contender:
    """With the best number of unrolled positions.  Raises Unavailable if it is not installed."""
    with optional():
        from benchmarks import jax_contenders, jax_models

    def unrolled(unroll: int) -> Contender:
        function = partial(jax_models.mamba, unroll=unroll)
        return jax_contenders.block(f"JAX, unroll {unroll}", function, ours, x, arriving)

    return jax_contenders.best_unroll(unrolled, report)[0]


def without_convolution(x: Tensor, arriving: Tensor, report: Report) -> Builders:
    """Mamba blocks without a convolution; other libraries cannot leave it out."""
    width = x.shape[2]
    ours = fresh_mixer("mamba(window=1)", width)

    def by_definition() -> Contender:
        block = PlainMamba(width, selective_scan_definition, window=1)
        block.load_state_dict(ours.state_dict(), strict=True)
        return contender("recall-arena, definition", block, x, arriving)

    return {
        OURS: lambda: contender(OURS, ours, x, arriving),
        "JAX": lambda: mamba_in_jax(ours, x, arriving, report),
        "recall-arena, definition": by_definition,
    }


def transformers_block(width: int, *, use_mambapy: bool) -> nn.Module:
    """transformers' Mamba block.  Raises Unavailable if a package is missing."""
    with optional():
        from transformers import MambaConfig, logging
        from transformers.models.mamba.modeling_mamba import MambaMixer

        if use_mambapy:
            import mambapy  # type: ignore[import-untyped]  # noqa: F401 - else transformers loops
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # CUDA kernels are advised
    config = MambaConfig(
        hidden_size=width, state_size=16, num_hidden_layers=1, use_mambapy=use_mambapy
    )
    return MambaMixer(config, layer_idx=0).train()


def attention_builders(x: Tensor, arriving: Tensor, text: str) -> Builders:
    """The attention blocks, all with the weights of ours."""
    width = x.shape[2]
    ours, rotary = fresh_mixer(text, width), text == "attention-rope"

    def in_torch(name: str, attend: Attend) -> Contender:
        block = eager(attend=attend)(text, width)
        block.load_state_dict(ours.state_dict(), strict=True)
        return contender(name, block, x, arriving)

    def in_jax() -> Contender:
        with optional():
            from benchmarks import jax_contenders, jax_models

        function = partial(jax_models.attention, rotary=rotary)
        return jax_contenders.block("JAX", function, ours, x, arriving)

    fused, plain = "PyTorch, scaled_dot_product_attention", "PyTorch, softmax of products"
    return {
        OURS: lambda: contender(OURS, ours, x, arriving),
        "JAX": in_jax,
        fused: partial(in_torch, fused, fused_attention),
        plain: partial(in_torch, plain, causal_attention_definition),
    }


def gated_delta_builders(x: Tensor, arriving: Tensor) -> Builders:
    """The blocks of the gated delta rule, all with the weights of ours."""
    width = x.shape[2]
    ours = fresh_mixer("gated-delta", width)

    def in_torch(name: str, rule: Callable[..., Tensor]) -> Contender:
        block = PlainGatedDelta(width, rule)
        block.load_state_dict(ours.state_dict(), strict=True)
        return contender(name, block, x, arriving)

    rules = {
        "recall-arena, definition": definition_of_delta,
        "transformers, chunks": transformers_delta(chunked=True),
        "transformers, step by step": transformers_delta(chunked=False),
    }
    made: Builders = {OURS: lambda: contender(OURS, ours, x, arriving)}
    return made | {name: partial(in_torch, name, rule) for name, rule in rules.items()}


def contender(
    name: str,
    block: nn.Module,
    x: Tensor,
    arriving: Tensor,
    function: Callable[[Tensor], Tensor] | None = None,
) -> Contender:
    """A PyTorch block; `function` computes it where that is not its own `forward`."""
    wanted = {"x": x, **dict(block.named_parameters())}

    def both(_: object) -> tuple[Tensor, ...]:
        out = block(x) if function is None else function(x)
        return out, *torch.autograd.grad(out, list(wanted.values()), arriving)

    def results() -> Results:
        return arrays(dict(zip(["output", *wanted], both(None), strict=True)))

    return Contender(name, results, [{"forward and backward": both}])
