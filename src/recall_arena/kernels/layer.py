"""Mixers with a kernel of their own: what each gives it, and how one is called.

A layer is a mixer as the tensors and options that it is made of.  The mixer's module makes one
where nothing stands between its weights and its function; `mix` then runs from the input's
projection to the output's in one call, a few sequences at a time, while they are in the cache.
A kernel for whole models (`stack.py`) takes layers too.
"""

import ctypes
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from recall_arena.kernels import native, structs
from recall_arena.kernels.function import Operation, Tensors, compiled
from recall_arena.shapes import Hidden, ReadHidden

Map = Callable[[Tensor], Tensor]
"""A projection or a convolution: a module, or a function that applies its weights."""


@dataclass(frozen=True)
class Shape:
    """Of the input (batch, length, width), and whether only the last position is read."""

    batch: int
    length: int
    width: int
    last: bool = False

    @property
    def read(self) -> int:
        """How many positions of a sequence are read."""
        return 1 if self.last else self.length


class Layer(ABC):
    """A mixer's weights and options; subclasses are frozen dataclasses.

    KIND  the tag by which the library knows it, as in native/operations.hpp
    """

    KIND: ClassVar[structs.Kind]

    @abstractmethod
    def weights(self) -> tuple[Tensor, ...]:
        """All weights, in the kernel's order."""

    @abstractmethod
    def with_weights(self, weights: Sequence[Tensor]) -> "Layer":
        """The same layer made of other tensors, given in that order."""

    @abstractmethod
    def transposed(self) -> tuple[bool, ...]:
        """For each weight, whether the kernel leaves its gradient with the axes exchanged."""

    @abstractmethod
    def check(self, width: int) -> None:
        """Raises ValueError if the weights do not fit together and to vectors of this width.

        The compiled kernel reads where the shapes say, so they are compared before it may.
        """

    @abstractmethod
    def has_room(self, length: int) -> bool:
        """Whether the kernel takes such sizes and sequences of this length."""

    @abstractmethod
    def definition(self, x: Hidden, *, last: bool) -> ReadHidden:
        """The mixer in PyTorch, at every position or, (batch, 1, width), at the last alone."""

    @abstractmethod
    def saved(self, shape: Shape) -> dict[str, tuple[int, ...]]:
        """What the backward pass reads again: shapes by the names of the struct's fields."""

    @abstractmethod
    def arguments(self, shape: Shape) -> tuple[ctypes.Structure, Tensor | None]:
        """The struct that the kernel reads, and what it points to beside the weights."""

    @abstractmethod
    def work(self, shape: Shape) -> int:
        """How much there is to do, in the units of `native.threads`."""


def mix(layer: Layer, x: Hidden, *, last: bool = False) -> ReadHidden:
    """The mixer's outputs (batch, length, width), or with `last` (batch, 1, width), the last one.

    Runs compiled for float32 on the CPU, in the sizes that the kernel takes; otherwise as the
    layer's definition.  Bit-identical from call to call, for any number of threads.  Raises
    ValueError if the shapes do not fit together.
    """
    layer.check(x.shape[2])
    if native.fits(x, *layer.weights()) and layer.has_room(x.shape[1]):
        return compiled(_Mix(layer, last), x, *layer.weights())
    return layer.definition(x, last=last)


@dataclass(frozen=True)
class _Mix(Operation):
    layer: Layer
    last: bool

    def definition(self, *tensors: Tensor) -> Tensor:
        x, *weights = tensors
        return self.layer.with_weights(weights).definition(x, last=self.last)

    def forward(self, tensors: Sequence[Tensor], *, train: bool) -> tuple[Tensor, Tensors]:
        x, layer, shape = self._ready(tensors)
        out = x.new_empty(shape.batch, shape.read, shape.width)
        rooms = layer.saved(shape) if train else {}
        saved = {name: x.new_empty(size) for name, size in rooms.items()}
        call, kept = layer.arguments(shape)
        _point(call, {"x": x, "out": out, **saved})
        native.call("recall_block_forward", call, native.threads(layer.work(shape)))
        del kept  # until here
        return out, tuple(saved.values())

    def backward(
        self, tensors: Sequence[Tensor], saved: Sequence[Tensor], grad_out: Tensor
    ) -> Tensors:
        x, layer, shape = self._ready(tensors)
        weights = layer.weights()
        grad_out, grad_x = grad_out.contiguous(), x.new_empty(x.shape)
        gradients = native.partial_gradients(shape.batch, weights)
        call, kept = layer.arguments(shape)
        _point(call, dict(zip(layer.saved(shape), saved, strict=True)))
        ends = {"x": x, "grad_out": grad_out, "grad_x": grad_x, "gradients": gradients}
        _point(call, ends)
        structs.head(call).portions = gradients.shape[0]
        native.call("recall_block_backward", call, native.threads(layer.work(shape)))
        del kept
        parts = gradients[0].split([w.numel() for w in weights])
        flags = layer.transposed()
        return grad_x, *(_unpacked(*each) for each in zip(parts, weights, flags, strict=True))

    def _ready(self, tensors: Sequence[Tensor]) -> tuple[Tensor, Layer, Shape]:
        x, *weights = (t.contiguous() for t in tensors)
        batch, length, width = x.shape
        return x, self.layer.with_weights(weights), Shape(batch, length, width, self.last)


def _point(call: ctypes.Structure, tensors: dict[str, Tensor]) -> None:
    """Point fields of a struct, or of its head, to tensors."""
    head = structs.head(call)
    for name, tensor in tensors.items():
        setattr(head if name in structs.HEAD else call, name, tensor.data_ptr())


def _unpacked(part: Tensor, weight: Tensor, transposed: bool) -> Tensor:
    """A weight's gradient from the numbers that the kernel left."""
    if not transposed:
        return part.view(weight.shape)
    return part.view(weight.shape[-1], weight.shape[0]).t().view(weight.shape)
