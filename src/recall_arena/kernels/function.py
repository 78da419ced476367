"""Compiled operations under autograd: one Function for all of them.

An operation says what it is by its definition in PyTorch, and gives a compiled value and a
compiled gradient.  The gradient of that gradient, and gradients of tensors that are not what
they seem, come from the definition, so derivatives of every order are right.
"""

from abc import ABC, abstractmethod
from typing import Any, cast

import torch
from torch import Tensor

from recall_arena.kernels import plain

Tensors = tuple[Tensor | None, ...]


class Operation(ABC):
    """A function of tensors, of which some may be None, that has a compiled form."""

    @abstractmethod
    def definition(self, *tensors: Any) -> Tensor:
        """The value in PyTorch: any float type, any device, any order of derivatives."""

    @abstractmethod
    def forward(self, tensors: Any, *, train: bool) -> tuple[Tensor, Tensors]:
        """The compiled value, and, to `train`, what the gradient reads beside the tensors."""

    @abstractmethod
    def backward(self, tensors: Any, saved: Any, grad_out: Tensor) -> Tensors:
        """The compiled gradient of each tensor, None for one that is None."""


def compiled(operation: Operation, *tensors: Tensor | None) -> Tensor:
    """The operation's value by its compiled form, whose gradients autograd knows."""
    return cast(Tensor, _Compiled.apply(operation, *tensors))  # type: ignore[no-untyped-call]


class _Compiled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, operation: Operation, *tensors: Tensor | None) -> Tensor:
        out, saved = operation.forward(tensors, train=any(ctx.needs_input_grad))
        ctx.save_for_backward(*tensors, *saved)
        ctx.operation, ctx.count = operation, len(tensors)
        ctx.layouts = [_layout(t) for t in saved]
        return out

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> Tensors:
        stored = ctx.saved_tensors  # read once: under checkpointing a second look is an error
        tensors, saved = stored[: ctx.count], stored[ctx.count :]
        given = [t for t in (grad_out, *stored) if t is not None]
        kept = [_layout(t) for t in saved] == ctx.layouts  # hooks may give back another
        plainly = kept and plain.eager() and all(map(plain.readable, given))
        if torch.is_grad_enabled() or not plainly:
            return None, *_by_definition(ctx.operation, tensors, ctx.needs_input_grad[1:], grad_out)
        return None, *ctx.operation.backward(tensors, saved, grad_out)


def _layout(tensor: Tensor | None) -> tuple[object, ...] | None:
    return None if tensor is None else (tensor.shape, tensor.stride(), tensor.dtype)


def _by_definition(
    operation: Operation, tensors: Tensors, wanted: tuple[bool, ...], grad_out: Tensor
) -> Tensors:
    """The gradients as the definition has them; differentiable where the caller wants that."""
    again = torch.is_grad_enabled()
    with torch.enable_grad():
        # A node of its own for each argument, for one tensor may be two of them.
        nodes = [None if t is None else t.view_as(t) for t in tensors]
        out = operation.definition(*nodes)
        pairs = list(zip(nodes, wanted, strict=True))
        inputs = [node for node, want in pairs if node is not None and want]
        found = iter(torch.autograd.grad(out, inputs, grad_out, create_graph=again))
    return tuple(next(found) if node is not None and want else None for node, want in pairs)
