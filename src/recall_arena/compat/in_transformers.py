"""transformers' models of Mamba's first kind, and of the gated delta rule, on these functions."""

import inspect
from collections.abc import Callable
from contextlib import ExitStack
from importlib import import_module
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from recall_arena.compat.conv import ACTIVATIONS, causal_conv1d_fn
from recall_arena.compat.conv_update import causal_conv1d_update
from recall_arena.compat.gated_delta import (
    chunk_gated_delta_rule,
    chunk_kda,
    fused_recurrent_gated_delta_rule,
    fused_recurrent_kda,
)
from recall_arena.compat.scan import selective_scan_fn
from recall_arena.compat.state_update import selective_state_update

Functions = dict[str, Callable[..., Any]]

MODELS = ("mamba", "falcon_mamba", "jamba", "zamba")
GATED_DELTA_MODELS = ("qwen3_next", "qwen3_5", "qwen3_5_moe", "olmo_hybrid")
KDA_MODELS = ("kimi_linear",)
WITHOUT_A_FUSED_BLOCK = ("zamba",)
UNREAD = {
    *("use_mambapy", "use_associative_scan"),  # these choose among transformers' own
    *("use_cache", "output_router_logits"),  # of a whole model; its layers hand them down
    *("output_attentions", "output_hidden_states"),
}
"""Options of a call that change nothing about an operation."""


def use_in_transformers() -> ExitStack:
    """Let transformers' models run these functions on a CPU, until the result is closed.

        with use_in_transformers():             undo = use_in_transformers()
            model.generate(**prompt)            ...
                                                undo.close()

    Replaces the operations in the modules of mamba, falcon_mamba, jamba and zamba, and in those
    of qwen3_next, qwen3_5, qwen3_5_moe, olmo_hybrid and kimi_linear, in this process, for every
    such model, whenever it was made: forward, backward and generation.  Anything on another
    device, inside `torch.compile`, with packed sequences (seq_idx), or with an option that these
    functions do not have (an activation other than SiLU) goes where it went before.  Closing puts
    everything back, in any order where several are open.

    Out of reach, and unchanged: the models of Mamba-2 (mamba2, bamba, zamba2, falcon_h1,
    granitemoehybrid, nemotron_h), whose scan over whole sequences is not here, and others that
    only have a short convolution in common with Mamba (lfm2, ...).

    Raises ImportError if transformers is not installed, or is one that keeps these operations
    elsewhere (written for 5.23); then nothing is replaced.
    """
    names = (*MODELS, *GATED_DELTA_MODELS, *KDA_MODELS)
    places = [place for name in names for place in _places(name)]
    undo = ExitStack()
    for module, name, ours in places:
        choice = _WhereItFits(ours, vars(module)[name])
        setattr(module, name, choice)
        undo.callback(_put_back, module, name, choice)
    return undo


def _places(model: str) -> list[tuple[ModuleType, str, Callable[..., Any]]]:
    """The module, name and replacement of each operation of a model."""
    ours = _operations(model)
    module = import_module(f"transformers.models.{model}.modeling_{model}")
    missing = sorted(ours.keys() - vars(module).keys())
    if missing:
        raise ImportError(f"this version of transformers has no {', '.join(missing)} for {model}")
    return [(module, name, function) for name, function in ours.items()]


def _operations(model: str) -> Functions:
    """What replaces a model's operations, by the names that its module has for them."""
    ours: Functions = {
        "causal_conv1d_fn": causal_conv1d_fn,
        "causal_conv1d_update": causal_conv1d_update,
    }
    if model in GATED_DELTA_MODELS:
        ours["torch_chunk_gated_delta_rule"] = chunk_gated_delta_rule
        ours["torch_recurrent_gated_delta_rule"] = fused_recurrent_gated_delta_rule
        return ours
    if model in KDA_MODELS:
        ours["chunk_kimi_delta_attention"] = chunk_kda
        ours["recurrent_kimi_delta_attention"] = fused_recurrent_kda
        return ours
    ours["mamba_selective_scan"] = selective_scan_fn
    ours["mamba_selective_state_update"] = selective_state_update
    if model not in WITHOUT_A_FUSED_BLOCK:
        ours["mamba_inner_fn"] = _unfused
    return ours


def _unfused(
    xz: Tensor,
    *weights: Tensor | None,
    delta_bias: Tensor,
    delta_softplus: bool,
    b_rms_weight: Tensor | None = None,
    c_rms_weight: Tensor | None = None,
    dt_rms_weight: Tensor | None = None,
    b_c_dt_rms_eps: float = 1e-6,
) -> None:
    """Tell transformers to train by the operations above, one by one.

    A fused block would not see the attention mask between convolution and scan.
    """


class _WhereItFits:
    """`ours` for eager calls on a CPU whose options it knows, else `theirs`.

    Where others were replaced on top, closing only turns a choice off: it stays in between, and
    always takes `theirs`.
    """

    def __init__(self, ours: Callable[..., Any], theirs: Callable[..., Any]) -> None:
        self.ours, self.theirs, self.open = ours, theirs, True
        # Packed sequences would stay apart in our convolution, and mix in the scan after it.
        self.known = inspect.signature(ours).parameters.keys() - {"seq_idx", "cu_seqlens"}

    def __call__(self, first: Tensor, *rest: Any, **options: Any) -> Any:
        wanted = {name: x for name, x in options.items() if x is not None and name not in UNREAD}
        fits = wanted.keys() <= self.known and wanted.get("activation") in ACTIVATIONS
        fits = fits and self.open and first.device.type == "cpu"
        if fits and not torch.compiler.is_compiling():
            return self.ours(first, *rest, **wanted)
        return self.theirs(first, *rest, **options)


def _put_back(module: ModuleType, name: str, choice: _WhereItFits) -> None:
    choice.open = False
    while isinstance(current := vars(module)[name], _WhereItFits) and not current.open:
        setattr(module, name, current.theirs)
