"""A whole model in one call: tokens to logits, or to the loss and every weight's gradient.

    x      = embedding[token] (+ positions)
    x      = x + mixer(norm(x))           layer after layer
    logits = lm_head norm(x)              of the last position
    loss   = the mean cross-entropy of the answers

A few sequences at a time go all the way up and, for the loss, all the way back while they are in
the cache.  `recall_arena.model.SequenceModel.forward` is the definition, layer by layer.
"""

import ctypes
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from recall_arena.kernels import native, structs
from recall_arena.kernels.layers import Layer
from recall_arena.kernels.residual import Norm, native_norm
from recall_arena.shapes import Answers, Logits, Tokens

SHARE_OF_LOGITS, SHARE_OF_LOSS = 4, 16
"""How much more there is to do for each number of a layer's input than in `native.threads`."""


@dataclass(frozen=True)
class Stack:
    """What a model is made of: embedding (vocabulary, width), layers, readout (vocabulary, width).

    positions  (reach, width), added to the embedding; None for none
    """

    embedding: Tensor
    positions: Tensor | None
    layers: tuple[Layer, ...]
    norm: Norm
    lm_head: Tensor

    def weights(self) -> tuple[Tensor, ...]:
        """All that may be trained, in the kernel's order."""
        of_layers = (w for layer in self.layers for w in layer.weights())
        norm = (self.norm.weight, self.norm.bias)
        return (*of_layers, *norm, self.lm_head, *native.given(self.positions))

    def turned(self) -> Iterator[bool]:
        """For each weight, whether the kernel leaves its gradient with the axes exchanged."""
        for layer in self.layers:
            yield from layer.turned()
        yield from (False,) * (3 if self.positions is None else 4)

    def fits(self, tokens: Tensor) -> bool:
        """Whether the compiled kernel takes this model and these tokens, a batch of sequences.

        Raises ValueError if a layer's weights do not fit together.
        """
        vocabulary, width = self.embedding.shape
        tensors = (self.embedding, *self.weights())
        return (
            _are_numbers(tokens, 2)
            and tokens.numel() > 0
            and self.lm_head.shape == (vocabulary, width)
            and self.norm.weight.shape == self.norm.bias.shape == (width,)
            and self._positions_fit(tokens.shape[1], width)
            and native.fits(*tensors)
            and all(w.is_contiguous() for w in tensors)
            and all(layer.fits(tokens.shape[1], width) for layer in self.layers)
        )

    def _positions_fit(self, length: int, width: int) -> bool:
        if self.positions is None:
            return True
        return length <= self.positions.shape[0] and self.positions.shape[1] == width


def stack_logits(stack: Stack, tokens: Tokens) -> Logits | None:
    """The logits after the last of the tokens; no gradient flows.

    None where the compiled kernel does not take them.  Bit-identical from call to call, for any
    number of threads.  Raises IndexError for a token that is not in the vocabulary, ValueError if
    a layer's weights do not fit together.
    """
    if not stack.fits(tokens):
        return None
    tokens, call = tokens.contiguous(), _Call(stack, tokens.shape)
    logits = stack.embedding.new_empty(tokens.shape[0], stack.embedding.shape[0])
    call.struct.tokens, call.struct.logits = tokens.data_ptr(), logits.data_ptr()
    call.run("recall_stack_logits", SHARE_OF_LOGITS)
    return logits


class StackLoss:
    """The mean cross-entropy of a stack, which leaves each weight's gradient in its `grad`.

    What stood there before is written over; a weight that wants no gradient gets none.
    """

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._weights = stack.weights()
        self._made_for: tuple[object, ...] = ()
        self._call: _LossCall | None = None

    def __call__(self, tokens: Tokens, answers: Answers) -> Tensor:
        """The loss, a scalar.  Bit-identical from call to call, for any number of threads.

        Raises ValueError for tokens that the stack does not fit, or answers that are not one a
        sequence; IndexError for a token or an answer that is not in the vocabulary.
        """
        if not (_are_numbers(answers, 1) and len(answers) == len(tokens)):
            raise ValueError(
                f"answers must be int64 ({len(tokens)},) on the CPU, got {_described(answers)}"
            )
        made_for = (tokens.shape, tokens.dtype, *map(_address, self._weights))
        if self._call is None or made_for != self._made_for:
            if not self._stack.fits(tokens):
                raise ValueError(f"the kernel does not take tokens {_described(tokens)}")
            self._call = _LossCall(self._stack, tokens.shape)
            self._made_for = (tokens.shape, tokens.dtype, *map(_address, self._weights))
        return self._call.loss(tokens.contiguous(), answers.contiguous())


def _are_numbers(x: Tensor, axes: int) -> bool:
    """Whether these are tokens or answers as the kernel reads them."""
    return x.dtype == torch.int64 and x.is_cpu and x.ndim == axes


def _described(x: Tensor) -> str:
    return f"{x.dtype} {tuple(x.shape)} on {x.device}"


def _address(weight: Tensor) -> tuple[int, int]:
    """Where a weight and its gradient lie; 0 for a gradient that is not wanted or not there."""
    gradient = weight.grad if weight.requires_grad else None
    return weight.data_ptr(), 0 if gradient is None else gradient.data_ptr()


class _Call:
    """The struct for a stack and for tokens of one shape, and all that it points to."""

    def __init__(self, stack: Stack, shape: torch.Size, portions: int = 1) -> None:
        (batch, length), (vocabulary, width) = shape, stack.embedding.shape
        few = 2 * vocabulary * portions <= batch * length  # each portion projects them all
        self.elements = batch * length * width * len(stack.layers)
        self.layers = [
            layer.arguments(torch.Size((batch, length, width)), last=last == 0)
            for last, layer in zip(range(len(stack.layers))[::-1], stack.layers, strict=True)
        ]
        table = (structs.Layer * len(self.layers))(*(_pointer(call) for call, _ in self.layers))
        self.kept: list[object] = [stack, table]
        self.struct = structs.Stack(
            batch=batch,
            length=length,
            width=width,
            vocabulary=vocabulary,
            depth=len(self.layers),
            embedding=stack.embedding.data_ptr(),
            positions=None if stack.positions is None else stack.positions.data_ptr(),
            looked_up=few and stack.positions is None,
            layers=ctypes.addressof(table),
            norm=native_norm((stack.norm.weight, stack.norm.bias), stack.norm.epsilon),
            lm_head=stack.lm_head.data_ptr(),
        )

    def run(self, kernel: str, share: int) -> None:
        if native.call(kernel, self.struct, native.threads(self.elements * share)) != 0:
            last = self.struct.vocabulary - 1
            raise IndexError(f"index out of range: tokens and answers must be in 0..{last}")


class _LossCall(_Call):
    """The same with room for what the loss leaves behind."""

    def __init__(self, stack: Stack, shape: torch.Size) -> None:
        batch, weights = shape[0], stack.weights()
        self.shares = native.shares(batch, weights)
        super().__init__(stack, shape, portions=self.shares.shape[0])
        places = [_place(w, turned) for w, turned in zip(weights, stack.turned(), strict=True)]
        table = (structs.Place * len(places))(*places)
        self.losses = self.shares.new_empty(batch)
        logits = self.shares.new_empty(batch, self.struct.vocabulary)
        self.kept += [table, logits]
        self.struct.logits, self.struct.losses = logits.data_ptr(), self.losses.data_ptr()
        self.struct.gradients = self.shares.data_ptr()
        self.struct.portions, self.struct.numbers = self.shares.shape
        self.struct.places, self.struct.weights = ctypes.addressof(table), len(places)

    def loss(self, tokens: Tokens, answers: Answers) -> Tensor:
        self.struct.tokens, self.struct.answers = tokens.data_ptr(), answers.data_ptr()
        self.run("recall_stack_gradients", SHARE_OF_LOSS)
        return self.losses.mean()


def _pointer(call: ctypes.Structure) -> structs.Layer:
    kind = "mamba" if isinstance(call, structs.Mamba) else "attention"
    return structs.Layer(**{kind: ctypes.addressof(call)})


def _place(weight: Tensor, turned: bool) -> structs.Place:
    rows, columns = (weight.shape[0], weight.shape[-1]) if turned else (weight.numel(), 1)
    if not weight.requires_grad:
        return structs.Place(rows=rows, columns=columns)
    if weight.grad is None or not weight.grad.is_contiguous():
        weight.grad = torch.zeros_like(weight)
    return structs.Place(to=weight.grad.data_ptr(), rows=rows, columns=columns)
