"""A whole model as the tensors that the kernel for whole models is given.

    x      = embedding[token] (+ positions)
    x      = x + mixer(norm(x))           layer after layer
    logits = lm_head norm(x)              of the last position, or wherever it is asked
    loss   = the mean cross-entropy of the answers

`stack_calls.py` runs it.  `recall_arena.model.SequenceModel.forward` is the definition, layer by
layer.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from recall_arena.kernels import native
from recall_arena.kernels.layer import Layer
from recall_arena.kernels.norm import Norm, check_norm


class PreNorm(NamedTuple):
    """A residual block, x + mixer(norm(x)); an MLP may stand in the mixer's place."""

    norm: Norm
    mixer: Layer

    def weights(self) -> tuple[Tensor, ...]:
        """All weights, in the kernel's order."""
        return (*self.mixer.weights(), *self.norm.weights())


@dataclass(frozen=True)
class Stack:
    """What a model is made of: embedding (vocabulary, width), blocks, readout (vocabulary, width).

    positions  (reach, width), added to the embedding; None for none
    """

    embedding: Tensor
    positions: Tensor | None
    blocks: tuple[PreNorm, ...]
    norm: Norm
    lm_head: Tensor

    def weights(self) -> tuple[Tensor, ...]:
        """All that may be trained, in the kernel's order."""
        of_blocks = (w for block in self.blocks for w in block.weights())
        embedding = (self.embedding,) if self.embeds else ()
        of_tokens = (*embedding, *native.given(self.positions))
        return (*of_blocks, *self.norm.weights(), self.lm_head, *of_tokens)

    @property
    def embeds(self) -> bool:
        """Whether the embedding is trained."""
        return self.embedding.requires_grad

    def transposed(self) -> tuple[bool, ...]:
        """For each weight, whether the kernel leaves its gradient with the axes exchanged."""
        flags: list[bool] = []
        for block in self.blocks:
            flags += (*block.mixer.transposed(), *(False for _ in block.norm.weights()))
        return (*flags, *(False for _ in self.weights()[len(flags) :]))

    def fits(self, tokens: Tensor) -> bool:
        """Whether the compiled kernel takes this model and these tokens, a batch of sequences.

        Raises ValueError if weights do not fit together.
        """
        vocabulary, width = self.embedding.shape
        tensors = (self.embedding, *self.weights())
        if not (
            are_ids(tokens, 2)
            and tokens.numel() > 0
            and native.fits(*tensors)
            and all(w.is_contiguous() for w in tensors)
            and self.lm_head.shape == (vocabulary, width)
            and self._positions_fit(tokens.shape[1], width)
        ):
            return False
        check_norm(self.norm, width)
        for norm, mixer in self.blocks:
            mixer.check(width)
            check_norm(norm, width)
        return all(mixer.has_room(tokens.shape[1]) for _, mixer in self.blocks)

    def _positions_fit(self, length: int, width: int) -> bool:
        if self.positions is None:
            return True
        return length <= self.positions.shape[0] and self.positions.shape[1] == width


def are_ids(x: Tensor, axes: int) -> bool:
    """Whether these are token ids as the kernel reads them: int64 in the CPU's memory."""
    return type(x) is Tensor and x.dtype == torch.int64 and x.is_cpu and x.ndim == axes
