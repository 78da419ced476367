"""transformers' Mamba on these functions."""

import functools
import inspect
from collections.abc import Callable
from contextlib import ExitStack
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from recall_arena.compat.conv import ACTIVATIONS, causal_conv1d_fn, causal_conv1d_update
from recall_arena.compat.scan import selective_scan_fn
from recall_arena.compat.state_update import selective_state_update


def use_in_transformers() -> ExitStack:
    """Let transformers' Mamba run these functions on a CPU, until the result is closed.

        with use_in_transformers():             undo = use_in_transformers()
            model.generate(**prompt)            ...
                                                undo.close()

    Replaces the operations of `transformers.models.mamba`, in this process, for every such
    model, whenever it was made: forward, backward and generation.  Anything on another device,
    inside `torch.compile`, or with an option that these functions do not have (an activation
    other than SiLU) goes where it went before; so do all other models.  Close in the reverse
    order where several are open, and after the backward pass under gradient checkpointing.

    Raises ImportError if transformers is not installed, or is one that keeps these operations
    elsewhere (written for 5.23).
    """
    ours: dict[str, Callable[..., Any]] = {
        "causal_conv1d_fn": causal_conv1d_fn,
        "causal_conv1d_update": causal_conv1d_update,
        "mamba_inner_fn": _unfused,
        "mamba_selective_scan": selective_scan_fn,
        "mamba_selective_state_update": selective_state_update,
    }
    modeling_mamba = import_module("transformers.models.mamba.modeling_mamba")
    missing = sorted(ours.keys() - vars(modeling_mamba).keys())
    if missing:
        raise ImportError(f"this version of transformers has no {', '.join(missing)} for Mamba")
    undo = ExitStack()
    for name, function in ours.items():
        theirs = vars(modeling_mamba)[name]
        undo.callback(setattr, modeling_mamba, name, theirs)
        setattr(modeling_mamba, name, _where_it_fits(function, theirs))
    return undo


def _unfused(xz: Tensor, *weights: Tensor | None, delta_bias: Tensor, delta_softplus: bool) -> None:
    """Tell transformers to train by the operations above, one by one.

    A fused block would not see the attention mask between convolution and scan.
    """


def _where_it_fits(ours: Callable[..., Any], theirs: Callable[..., Any]) -> Callable[..., Any]:
    """`ours` for eager calls on a CPU whose options it knows, else `theirs`."""
    known = inspect.signature(ours).parameters
    hints = {"use_mambapy", "use_associative_scan"}  # these choose among transformers' own

    @functools.wraps(theirs)
    def choose(first: Tensor, *rest: Any, **options: Any) -> Any:
        wanted = {name: x for name, x in options.items() if x is not None and name not in hints}
        fits = wanted.keys() <= known.keys() and wanted.get("activation") in ACTIVATIONS
        if fits and first.device.type == "cpu" and not torch.compiler.is_compiling():
            return ours(first, *rest, **wanted)
        return theirs(first, *rest, **options)

    return choose
