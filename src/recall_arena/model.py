"""A sequence model: embedding, mixers with norm and residual, readout of the last position."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from recall_arena.block import MLP, Block, continued, norm_of
from recall_arena.kernels import plain
from recall_arena.marks import Marked, no_weight_decay
from recall_arena.mixers import Mixer
from recall_arena.mixers.mixer import State
from recall_arena.shapes import Hidden, Logits, Tokens, Where
from recall_arena.spec import ModelSpec, named
from recall_arena.watching import beside_forward, remember, watched

__all__ = [
    "MLP",
    "Block",
    "ModelSpec",
    "ModelState",
    "SequenceModel",
    "named",
    "sinusoids",
    "unit_embedding",
]


def unit_embedding(vocabulary: int, width: int) -> torch.Tensor:
    """The assignment's embedding: rows from N(0, 1), scaled to unit length; float32.

    The numbers are those of `numpy.random.seed(0); numpy.random.randn(vocabulary, width)`,
    drawn without touching numpy's global generator.
    """
    rows = np.random.RandomState(0).randn(vocabulary, width)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return torch.from_numpy(rows).float()


def sinusoids(length: int, width: int, like: torch.Tensor) -> torch.Tensor:
    """Fixed vectors of length 1 for positions 0 .. length - 1, of the type of `like`.

    Sines and cosines (arXiv:1706.03762, section 3.5), scaled to the length of a token's row;
    (length, width), without the last column if the width is odd.
    """
    half = (width + 1) // 2
    exact = torch.promote_types(like.dtype, torch.float32)  # bfloat16 has no 257
    position, pair = (torch.arange(n, dtype=exact, device=like.device) for n in (length, half))
    angles = position.unsqueeze(1) * 10_000.0 ** (-pair / half)
    vectors = torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)[:, :width] * half**-0.5
    return vectors.to(like.dtype)


class ModelState(NamedTuple):
    """What a model needs of the past to go on without it.

    length  tokens so far
    layers  the state of each layer; None is that before the first token
    """

    length: int
    layers: tuple[State | None, ...]


@remember
class SequenceModel(Marked):
    """Tokens to logits, after the last one or where it is asked.  The readout is not tied.

    Plain PyTorch: every part is called, so hooks fire and a part may be replaced by another
    module of the same signature.  The last block is asked for the last position alone, unless a
    hook watches it.  `recall_arena.compiled.Compiled` is the same function, faster.
    """

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        self.sinusoidal = spec.positions == "sinusoidal"
        self.embedding = _embedding_of(spec)
        self.positions: nn.Embedding | None = None
        if spec.max_length is not None:
            self.positions = _rows_of_length_one(spec.max_length, spec.width)
        self.layers = nn.ModuleList(
            Block(spec.width, options.build(spec.width), spec.norm, _mlp_of(spec))
            for options in spec.mixers
        )
        self.norm_f = norm_of(spec.norm, spec.width)
        self.lm_head = nn.Linear(spec.width, spec.vocabulary, bias=False)
        self.mark()

    def mark(self) -> None:
        """Weight decay leaves embeddings alone."""
        for embedding in (self.embedding, self.positions):
            no_weight_decay(getattr(embedding, "weight", None))

    def forward(self, tokens: Tokens, where: Where | None = None) -> Logits:
        """The logits (batch, vocabulary) after the last token, or (batch, asked, vocabulary) at
        the positions `where`.

        There is no padding mask.  No position sees a later one, so sequences of different lengths
        are padded on the right, with any token, and asked where they end:
        `where = mask.sum(1, keepdim=True) - 1`, int64.  Padding on the left would enter every
        state and shift every position.

        Raises ValueError if `where` is not int64 or is a padding mask, or learned positions do not
        reach as far as the tokens.
        """
        _check_where(where, tokens)
        x = self.embed(tokens)
        *before, final = self.layers
        for block in before:
            x = block(x)
        if where is not None:
            return self._read(final(x), where)
        alone = isinstance(final, Block) and not watched(final.modules())
        x = final(x, last=True) if alone else final(x)
        return self.lm_head(self.norm_f(x[:, -1]))

    def continued(
        self, tokens: Tokens, state: ModelState | None = None, where: Where | None = None
    ) -> tuple[Logits, ModelState]:
        """`forward` of a sequence's next tokens, and the state after them, to go on from.

            logits, state = model.continued(prompt)
            logits, state = model.continued(next_token, state)     # (batch, 1), or more at once

        `state` is that after the tokens before, None at the start; `where` counts from the first
        of these tokens.  The logits are those of the whole sequence.  A state is only read, so
        many sequences may go on from it.  All sequences of a batch are of one length: none may be
        padded.  Gradients flow, to the state too; without them (`torch.inference_mode()`) Mamba
        is compiled.

        Raises ValueError as `forward`, and for a state of another batch or stack;
        NotImplementedError if a hook watches a whole block or mixer, or a subclass has another
        `forward`.
        """
        if not beside_forward(type(self), "continued"):
            raise NotImplementedError(
                f"{type(self).__name__} has a forward of its own, which tells nothing of how a "
                "sequence goes on from a state"
            )
        _check_where(where, tokens)
        x, state = self.stream(tokens, state)
        if where is not None:
            return self._read(x, where), state
        return self.lm_head(self.norm_f(x[:, -1])), state

    def stream(self, tokens: Tokens, state: ModelState | None) -> tuple[Hidden, ModelState]:
        """What the last block gives at each of a sequence's next tokens, and the state after."""
        length, states = state or ModelState(0, (None,) * len(self.layers))
        sizes = {len(tensor) for each in states if each is not None for tensor in each}
        if len(states) != len(self.layers) or sizes - {len(tokens)}:
            raise ValueError(
                f"the state must be of {len(self.layers)} layers and a batch of {len(tokens)}, "
                f"got {len(states)} layers and {' and '.join(map(str, sorted(sizes)))}"
            )
        x, after = self.embed(tokens, length), []
        for layer, before in zip(self.layers, states, strict=True):
            x, own = continued(layer, x, before)
            after.append(own)
        return x, ModelState(length + tokens.shape[1], tuple(after))

    def _read(self, x: Hidden, where: Where) -> Logits:
        return self.lm_head(self.norm_f(x.take_along_dim(where.unsqueeze(2), dim=1)))

    def embed(self, tokens: Tokens, begin: int = 0) -> Hidden:
        """The embedded tokens that stand from position `begin` on.

        Raises ValueError if learned positions do not reach as far.
        """
        x = self.embedding(tokens)
        end = begin + tokens.shape[1]
        if self.sinusoidal:
            return x + sinusoids(end, x.shape[2], x)[begin:]
        if self.positions is None:
            return x
        reach = self.positions.num_embeddings
        if end > reach:
            raise ValueError(f"learned positions reach {reach} tokens, got a sequence of {end}")
        return x + self.positions(torch.arange(begin, end, device=tokens.device))

    def state_size(self, context: int) -> int:
        """How many numbers the layers must keep after `context` tokens to go on without them."""
        mixers = [module for module in self.layers.modules() if isinstance(module, Mixer)]
        return sum(mixer.state_size(context) for mixer in mixers)

    def trained_parameters(self) -> int:
        """How many numbers training changes."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)


def _check_where(where: Tensor | None, tokens: Tensor) -> None:
    """A mask in the place of positions is found here."""
    if where is not None and (where.dtype != torch.int64 or plain.is_mask(where, tokens)):
        raise ValueError(
            f"where must be positions (batch, asked) of int64, got {where.dtype} "
            f"{tuple(where.shape)}; for a padding mask, pad on the right and ask at "
            "where=mask.sum(1, keepdim=True) - 1"
        )


def _embedding_of(spec: ModelSpec) -> nn.Embedding:
    if spec.embedding == "trained":
        return _rows_of_length_one(spec.vocabulary, spec.width)
    rows = unit_embedding(spec.vocabulary, spec.width)
    return nn.Embedding.from_pretrained(rows.to(torch.empty(0)), freeze=True)


def _rows_of_length_one(rows: int, width: int) -> nn.Embedding:
    """A trained embedding whose rows start random, about as long as the assignment's."""
    embedding = nn.Embedding(rows, width)
    nn.init.normal_(embedding.weight, std=width**-0.5)
    return embedding


def _mlp_of(spec: ModelSpec) -> MLP | None:
    if spec.mlp == "none":
        return None
    return MLP(spec.width, spec.mlp_expand * spec.width, spec.mlp)
