"""A whole model in one call: token ids to logits, or to the loss and every weight's gradient.

A few sequences at a time go all the way up and, for the loss, all the way back while they are in
the cache.
"""

import ctypes
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from recall_arena.kernels import native, plain, structs
from recall_arena.kernels.layer import Shape
from recall_arena.kernels.norm import native_norm
from recall_arena.kernels.stack import PreNorm, Stack, are_ids
from recall_arena.shapes import Answers, Logits, Tokens, Where

OUTSIDE_SEQUENCE = 3
"""What the kernels return for a position that is not in its sequence."""

WORK_OF_LOGITS, WORK_OF_LOSS = 4, 16
"""How much more there is to do for each number of a layer's input than in `native.threads`."""


def _are_positions(where: Where | None, tokens: Tokens) -> bool:
    """Whether the kernel reads the positions that are asked: at least one, of each sequence."""
    if where is None:
        return True
    asked = are_ids(where, 2) and where.numel() > 0 and len(where) == len(tokens)
    return asked and not plain.is_mask(where, tokens)


class StackLogits:
    """The logits after the last of the tokens, or where it is asked; no gradient flows."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack

    def __call__(self, tokens: Tokens, where: Where | None = None) -> Logits | None:
        """None where the kernel does not take these tokens or the weights as they are now.

        Bit-identical from call to call, for any number of threads.  Raises IndexError for a token
        that is not in the vocabulary or a position that is not in the sequence, ValueError if
        weights do not fit together.
        """
        if not (_are_positions(where, tokens) and self._stack.fits(tokens)):
            return None
        call = _Call(self._stack, tokens.shape, where)
        embedding = self._stack.embedding
        read = tokens.shape[:1] if where is None else where.shape
        logits = embedding.new_empty(*read, embedding.shape[0])
        call.struct.logits = logits.data_ptr()
        call.run("recall_stack_logits", WORK_OF_LOGITS, tokens, where)
        return logits


class StackLoss:
    """The mean cross-entropy of a stack, which leaves each weight's gradient in its `grad`.

    What stood there before is written over; a weight that wants no gradient gets none.
    """

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._tensors = (stack.embedding, *stack.weights())
        self._made_for: list[object] = []
        self._call: _LossCall | None = None

    def __call__(
        self, tokens: Tokens, answers: Answers, where: Where | None = None
    ) -> Tensor | None:
        """The loss, a scalar; None where the kernel does not take these tensors.

        Bit-identical from call to call, for any number of threads.  Raises IndexError for a token
        or an answer that is not in the vocabulary or a position that is not in the sequence,
        ValueError if weights do not fit together.
        """
        read = tokens.shape[:1] if where is None else where.shape
        if not (are_ids(tokens, 2) and are_ids(answers, len(read)) and answers.shape == read):
            return None
        if not (_are_positions(where, tokens) and plain.eager()):
            return None
        shapes = (tokens.shape, read)
        if self._call is None or [shapes, *map(_places, self._tensors)] != self._made_for:
            if not self._stack.fits(tokens):
                return None
            self._call = _LossCall(self._stack, tokens.shape, where)
            self._made_for = [shapes, *map(_places, self._tensors)]
        return self._call.loss(tokens, answers, where)


def _places(weight: Tensor) -> tuple[object, ...]:
    """Where and how a weight and its gradient lie: `data` may have another layout at one address.

    0 for a gradient that is not there, -1 for one that is not wanted.
    """
    if not weight.requires_grad:
        return weight.data_ptr(), weight.shape, weight.stride(), -1
    grad = weight.grad
    gradient = 0 if grad is None else (grad.data_ptr(), grad.stride())
    return weight.data_ptr(), weight.shape, weight.stride(), gradient


class _Call:
    """The struct for a stack and for tokens of one shape, and all that it points to."""

    def __init__(
        self, stack: Stack, shape: torch.Size, where: Where | None = None, shards: int = 1
    ) -> None:
        (batch, length), (vocabulary, width) = shape, stack.embedding.shape
        few = 2 * vocabulary * shards <= batch * length  # each shard projects them all
        self.elements = batch * length * width * len(stack.blocks)
        shapes = _shapes(stack.blocks, Shape(batch, length, width), where)
        self.layers = [_arguments(*each) for each in zip(stack.blocks, shapes, strict=True)]
        heads = (ctypes.addressof(call) for call, _ in self.layers)
        table = (ctypes.c_void_p * len(self.layers))(*heads)
        self.kept: list[object] = [stack, table]
        self.struct = structs.Stack(
            batch=batch,
            length=length,
            width=width,
            vocabulary=vocabulary,
            depth=len(self.layers),
            asked=1 if where is None else where.shape[1],
            embedding=stack.embedding.data_ptr(),
            positions=native.address(stack.positions),
            gathered=few and stack.positions is None and not stack.embeds,
            embeds=stack.embeds,
            layers=ctypes.addressof(table),
            norm=native_norm(stack.norm),
            lm_head=stack.lm_head.data_ptr(),
        )

    def run(self, kernel: str, work: int, tokens: Tokens, where: Where | None) -> None:
        tokens = tokens.contiguous()
        where = None if where is None else where.contiguous()
        self.struct.tokens = tokens.data_ptr()
        self.struct.where = native.address(where)
        returned = native.call(kernel, self.struct, native.threads(self.elements * work))
        if returned == OUTSIDE_SEQUENCE:
            last = self.struct.length - 1
            raise IndexError(f"index out of range: positions must be in 0..{last}")
        if returned != 0:
            last = self.struct.vocabulary - 1
            raise IndexError(f"index out of range: tokens and answers must be in 0..{last}")


class _LossCall(_Call):
    """The same with room for what the loss leaves behind."""

    def __init__(self, stack: Stack, shape: torch.Size, where: Where | None = None) -> None:
        batch, weights = shape[0], stack.weights()
        self.gradients = native.partial_gradients(batch, weights)
        super().__init__(stack, shape, where, shards=self.gradients.shape[0])
        places = [_place(w, flag) for w, flag in zip(weights, stack.transposed(), strict=True)]
        table = (structs.Place * len(places))(*places)
        self.losses = self.gradients.new_empty(batch * self.struct.asked)
        self.kept.append(table)
        self.struct.losses = self.losses.data_ptr()
        self.struct.gradients = self.gradients.data_ptr()
        self.struct.shards, self.struct.numbers = self.gradients.shape
        self.struct.places, self.struct.weights = ctypes.addressof(table), len(places)

    def loss(self, tokens: Tokens, answers: Answers, where: Where | None) -> Tensor:
        answers = answers.contiguous()
        self.struct.answers = answers.data_ptr()
        self.run("recall_stack_gradients", WORK_OF_LOSS, tokens, where)
        return self.losses.mean()


def _shapes(blocks: Sequence[PreNorm], shape: Shape, where: Where | None) -> list[Shape]:
    """What each block is given: nothing but the last position, once no block mixes any more."""
    if where is not None:
        return [shape] * len(blocks)
    *_, final = (i for i, block in enumerate(blocks) if block.mixer.MIXES)
    after = [replace(shape, length=1)] * (len(blocks) - final - 1)
    return [*[shape] * final, replace(shape, last=True), *after]


def _arguments(block: PreNorm, shape: Shape) -> tuple[structs.Mixer, Tensor | None]:
    call, kept = block.mixer.arguments(shape)
    call.block.norm = native_norm(block.norm)
    call.block.numbers += sum(w.numel() for w in block.norm.weights())
    return call, kept


def _place(weight: Tensor, transposed: bool) -> structs.Place:
    rows, columns = (weight.shape[0], weight.shape[-1]) if transposed else (weight.numel(), 1)
    if not weight.requires_grad:
        return structs.Place(rows=rows, columns=columns)
    if weight.grad is None or not weight.grad.is_contiguous():
        weight.grad = torch.zeros_like(weight)
    return structs.Place(to=weight.grad.data_ptr(), rows=rows, columns=columns)
