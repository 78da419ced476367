"""transformers' models of Mamba's first kind on these functions."""

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
from recall_arena.compat.scan import selective_scan_fn
from recall_arena.compat.state_update import selective_state_update

MODELS = ("mamba", "falcon_mamba", "jamba", "zamba")
WITHOUT_A_FUSED_BLOCK = ("zamba",)


def use_in_transformers() -> ExitStack:
    """Let transformers' Mamba models run these functions on a CPU, until the result is closed.

        with use_in_transformers():             undo = use_in_transformers()
            model.generate(**prompt)            ...
                                                undo.close()

    Replaces the operations in the modules of mamba, falcon_mamba, jamba and zamba, in this
    process, for every such model, whenever it was made: forward, backward and generation.
    Anything on another device, inside `torch.compile`, with packed sequences (seq_idx), or with
    an option that these functions do not have (an activation other than SiLU) goes where it went
    before.  Closing puts everything back, in any order where several are open.

    Out of reach, and unchanged: the models of Mamba-2 (mamba2, bamba, zamba2, falcon_h1,
    granitemoehybrid, nemotron_h), whose scan over whole sequences is not here, and others that
    only have a short convolution in common with Mamba (lfm2, qwen3_next, ...).

    Raises ImportError if transformers is not installed, or is one that keeps these operations
    elsewhere (written for 5.23); then nothing is replaced.
    """
    places = [place for name in MODELS for place in _places(name)]
    undo = ExitStack()
    for module, name, ours in places:
        choice = _WhereItFits(ours, vars(module)[name])
        setattr(module, name, choice)
        undo.callback(_put_back, module, name, choice)
    return undo


def _places(model: str) -> list[tuple[ModuleType, str, Callable[..., Any]]]:
    """The module, name and replacement of each operation of a model."""
    ours: dict[str, Callable[..., Any]] = {
        "causal_conv1d_fn": causal_conv1d_fn,
        "causal_conv1d_update": causal_conv1d_update,
        "mamba_inner_fn": _unfused,
        "mamba_selective_scan": selective_scan_fn,
        "mamba_selective_state_update": selective_state_update,
    }
    if model in WITHOUT_A_FUSED_BLOCK:
        del ours["mamba_inner_fn"]
    module = import_module(f"transformers.models.{model}.modeling_{model}")
    missing = sorted(ours.keys() - vars(module).keys())
    if missing:
        raise ImportError(f"this version of transformers has no {', '.join(missing)} for {model}")
    return [(module, name, function) for name, function in ours.items()]


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
        self.known = inspect.signature(ours).parameters.keys() - {"seq_idx"}

    def __call__(self, first: Tensor, *rest: Any, **options: Any) -> Any:
        hints = {"use_mambapy", "use_associative_scan"}  # these choose among transformers' own
        wanted = {name: x for name, x in options.items() if x is not None and name not in hints}
        fits = wanted.keys() <= self.known and wanted.get("activation") in ACTIVATIONS
        fits = fits and self.open and first.device.type == "cpu"
        if fits and not torch.compiler.is_compiling():
            return self.ours(first, *rest, **wanted)
        return self.theirs(first, *rest, **options)


def _put_back(module: ModuleType, name: str, choice: _WhereItFits) -> None:
    choice.open = False
    while isinstance(current := vars(module)[name], _WhereItFits) and not current.open:
        setattr(module, name, current.theirs)
