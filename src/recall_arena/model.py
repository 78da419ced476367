"""A sequence model: embedding, mixers with norm and residual, readout of the last position.

A model is spelled by the names of its mixers: ("mamba", "attention") is the whole difference
between Hybrid-A and Mamba.
"""

import numpy as np
import torch
from torch import nn

from recall_arena.config import frozen
from recall_arena.mixers import MIXERS, Mixer
from recall_arena.names import unknown
from recall_arena.shapes import Hidden, Logits, ReadHidden, Tokens, Where
from recall_arena.watching import watched
from recall_arena.zoo import ZOO, Positions


@frozen
class ModelSpec:
    """Everything that decides a model's function, but its weights.

    layers      the mixers' names, first to last
    vocabulary  K, how many tokens there are
    width       d, the numbers in an embedding and in the residual stream
    positions   "none", or "learned": one trained vector for each of max_length positions
    max_length  how many positions have a vector; positions that training never reaches keep
                their first, random vector

    Raises ValueError for an unknown mixer, no layers, or learned positions without max_length.
    """

    layers: tuple[str, ...]
    vocabulary: int = 16
    width: int = 8
    positions: Positions = "none"
    max_length: int | None = None

    def __post_init__(self) -> None:
        if not self.layers:
            raise ValueError("layers must name at least one mixer")
        for name in self.layers:
            if name not in MIXERS:
                raise ValueError(unknown("mixer", name, MIXERS))
        if self.width < 1 or self.vocabulary < 2:
            raise ValueError(
                "width must be at least 1 and vocabulary at least 2, "
                f"got {self.width} and {self.vocabulary}"
            )
        if self.positions not in ("none", "learned"):
            raise ValueError(unknown("positions", self.positions, ("none", "learned")))
        if (self.positions == "learned") != (self.max_length is not None):
            raise ValueError("learned positions need max_length, and nothing else takes it")


def named(
    name: str, *, width: int = 8, vocabulary: int = 16, longest_context: int = 192
) -> ModelSpec:
    """One of the named models of `zoo.py`, or any stack written as "mamba,attention-rope".

    `longest_context` is the longest context that learned positions have a vector for; the
    query behind it takes one more.  Raises ValueError for a name that does not exist.
    """
    if name in ZOO:
        layers, positions = ZOO[name].layers, ZOO[name].positions
    elif "," in name or name in MIXERS:
        layers, positions = tuple(name.split(",")), "none"
    else:
        raise ValueError(unknown("model", name, ZOO))
    reach = longest_context + 1 if positions == "learned" else None
    return ModelSpec(layers, vocabulary, width, positions, reach)


def unit_embedding(vocabulary: int, width: int) -> torch.Tensor:
    """The assignment's embedding: rows from N(0, 1), scaled to unit length; float32.

    The numbers are those of `numpy.random.seed(0); numpy.random.randn(vocabulary, width)`,
    drawn without touching numpy's global generator.
    """
    rows = np.random.RandomState(0).randn(vocabulary, width)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return torch.from_numpy(rows).float()


class Block(nn.Module):
    """Pre-norm residual: x + mixer(norm(x)).

    `mixer` may be any module (batch, length, width) -> same; a Mixer reads its last position
    alone where nothing else is wanted.
    """

    def __init__(self, width: int, mixer: nn.Module) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.mixer = mixer

    def forward(self, x: Hidden, last: bool = False) -> ReadHidden:
        """Every position's output, or with `last` that of the last one alone, (batch, 1, width)."""
        normed = self.norm(x)
        if not last:
            return x + self.mixer(normed)
        y = self.mixer(normed, last=True) if isinstance(self.mixer, Mixer) else self.mixer(normed)
        return x[:, -1:] + y[:, -1:]


class SequenceModel(nn.Module):
    """Tokens to logits, after the last one or where it is asked.  The readout is not tied.

    Plain PyTorch: every part is called, so hooks fire and a part may be replaced by another
    module of the same signature.  The last block is asked for the last position alone, unless a
    hook watches it.  `recall_arena.compiled.Compiled` is the same function, faster.
    """

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        rows = unit_embedding(spec.vocabulary, spec.width)
        self.embedding = nn.Embedding.from_pretrained(rows, freeze=True)
        self.embedding.weight._no_weight_decay = True
        self.positions: nn.Embedding | None = None
        if spec.max_length is not None:
            self.positions = nn.Embedding(spec.max_length, spec.width)
            nn.init.normal_(self.positions.weight, std=spec.width**-0.5)  # as long as a token's row
            self.positions.weight._no_weight_decay = True  # type: ignore[attr-defined]
        self.layers = nn.ModuleList(
            Block(spec.width, MIXERS[name](spec.width)) for name in spec.layers
        )
        self.norm_f = nn.LayerNorm(spec.width)
        self.lm_head = nn.Linear(spec.width, spec.vocabulary, bias=False)

    def forward(self, tokens: Tokens, where: Where | None = None) -> Logits:
        """The logits (batch, vocabulary) after the last token, or (batch, asked, vocabulary) at
        the positions `where`.

        Raises ValueError if learned positions do not reach as far as the tokens.
        """
        x = self.embed(tokens)
        *before, final = self.layers
        for block in before:
            x = block(x)
        if where is not None:
            read = final(x).take_along_dim(where.unsqueeze(2), dim=1)
            return self.lm_head(self.norm_f(read))
        alone = isinstance(final, Block) and not watched(final.modules())
        x = final(x, last=True) if alone else final(x)
        return self.lm_head(self.norm_f(x[:, -1]))

    def embed(self, tokens: Tokens, begin: int = 0) -> Hidden:
        """The embedded tokens that stand from position `begin` on.

        Raises ValueError if learned positions do not reach as far.
        """
        x = self.embedding(tokens)
        if self.positions is None:
            return x
        end, reach = begin + tokens.shape[1], self.positions.num_embeddings
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
