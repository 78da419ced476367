"""Mixers with a kernel of their own: what each gives it, and how one is called.

A `Layer` holds a mixer's weights and options, all that the kernel needs.  `Mixer.layer()` gives
one only where no hook, subclass or replaced part would change the result; `mix` then runs from the
input's projection to the output's in one call, a few sequences at a time, while they are in the
cache.
A kernel for whole models (`stack.py`) takes layers too.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

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


@dataclass(frozen=True)
class Layer(ABC):
    """A mixer's weights and options; subclasses are frozen dataclasses.

    Those of the fields that hold a tensor are the weights, in the kernel's order; one that holds
    None is a weight that this layer does without.

    KIND        the tag by which the library knows it, as in native/operations.hpp
    MIXES       whether a position sees others; those of an MLP do not
    TRANSPOSED  the weights whose gradient the kernel leaves with the axes exchanged
    """

    KIND: ClassVar[structs.Kind]
    MIXES: ClassVar[bool] = True
    TRANSPOSED: ClassVar[frozenset[str]] = frozenset()

    def named_weights(self) -> dict[str, Tensor]:
        """The weights that there are, in the kernel's order."""
        every = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: x for name, x in every.items() if isinstance(x, Tensor)}

    def weights(self) -> tuple[Tensor, ...]:
        """The same without their names."""
        return tuple(self.named_weights().values())

    def with_weights(self, weights: Sequence[Tensor]) -> "Layer":
        """The same layer made of other tensors, given in that order."""
        return replace(self, **dict[str, Any](zip(self.named_weights(), weights, strict=True)))

    def transposed(self) -> tuple[bool, ...]:
        """For each weight, whether the kernel leaves its gradient with the axes exchanged."""
        return tuple(name in self.TRANSPOSED for name in self.named_weights())

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
    def arguments(self, shape: Shape) -> tuple[structs.Mixer, Tensor | None]:
        """The struct that the kernel reads, and what it points to beside the weights."""

    @abstractmethod
    def work(self, shape: Shape) -> int:
        """How much there is to do, in the units of `native.threads`."""


def head(
    layer: Layer,
    shape: Shape,
    in_proj: Tensor,
    out_proj: Tensor,
    in_bias: Tensor | None = None,
    out_bias: Tensor | None = None,
) -> structs.Block:
    """What the structs of all mixers begin with."""
    return structs.Block(
        kind=layer.KIND,
        batch=shape.batch,
        length=shape.length,
        width=shape.width,
        last=shape.last,
        in_proj=in_proj.data_ptr(),
        in_bias=native.address(in_bias),
        out_proj=out_proj.data_ptr(),
        out_bias=native.address(out_bias),
        numbers=sum(w.numel() for w in layer.weights()),
    )


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
        buffers = layer.saved(shape) if train else {}
        saved = {name: x.new_empty(size) for name, size in buffers.items()}
        call, kept = layer.arguments(shape)
        structs.point(call, saved)
        structs.point(call.block, {"x": x, "out": out})
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
        structs.point(call, dict(zip(layer.saved(shape), saved, strict=True)))
        ends = {"x": x, "grad_out": grad_out, "grad_x": grad_x, "gradients": gradients}
        structs.point(call.block, ends)
        call.block.shards = gradients.shape[0]
        native.call("recall_block_backward", call, native.threads(layer.work(shape)))
        del kept
        parts = gradients[0].split([w.numel() for w in weights])
        flags = layer.transposed()
        return grad_x, *(_unpacked(*each) for each in zip(parts, weights, flags, strict=True))

    def _ready(self, tensors: Sequence[Tensor]) -> tuple[Tensor, Layer, Shape]:
        x, *weights = (t.contiguous() for t in tensors)
        batch, length, width = x.shape
        return x, self.layer.with_weights(weights), Shape(batch, length, width, self.last)


def _unpacked(part: Tensor, weight: Tensor, transposed: bool) -> Tensor:
    """A weight's gradient from the numbers that the kernel left."""
    if not transposed:
        return part.view(weight.shape)
    return part.view(weight.shape[-1], weight.shape[0]).t().view(weight.shape)
