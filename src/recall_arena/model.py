"""A sequence model: embedding, mixers with norm and residual, readout of the last position."""

import numpy as np
import torch
from torch import nn

from recall_arena.kernels import MLPLayer, mlp_definition
from recall_arena.mixers import Mixer
from recall_arena.shapes import Hidden, Logits, ReadHidden, Tokens, Where
from recall_arena.spec import MLPKind, ModelSpec, NormKind, named
from recall_arena.watching import bias_of, stock, watched

__all__ = ["MLP", "Block", "ModelSpec", "SequenceModel", "named", "sinusoids", "unit_embedding"]


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
    position, pair = (torch.arange(n, dtype=like.dtype, device=like.device) for n in (length, half))
    angles = position.unsqueeze(1) * 10_000.0 ** (-pair / half)
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)[:, :width] * half**-0.5


def norm_of(kind: NormKind, width: int) -> nn.LayerNorm | nn.RMSNorm:
    """A norm of vectors of `width` numbers."""
    return nn.LayerNorm(width) if kind == "layer" else nn.RMSNorm(width, eps=1e-5)


class MLP(nn.Module):
    """fc2 gelu(fc1 x), or SwiGLU; see `kernels/mlp.py`."""

    def __init__(self, width: int, hidden: int, kind: MLPKind) -> None:
        super().__init__()
        self.gated = kind == "swiglu"
        self.fc1 = nn.Linear(width, 2 * hidden if self.gated else hidden, bias=not self.gated)
        self.fc2 = nn.Linear(hidden, width, bias=not self.gated)

    def forward(self, x: ReadHidden) -> ReadHidden:
        """Each position's output from its own numbers."""
        return mlp_definition(x, self.fc1, self.fc2, gated=self.gated)

    def layer(self) -> MLPLayer | None:
        """What the kernel for whole models is given; None where something has been replaced."""
        parts = (self.fc1, self.fc2)
        plain = all(stock(each, nn.Linear, "weight", *bias_of(each)) for each in parts)
        if type(self) is not MLP or not plain:
            return None
        weights = (self.fc1.weight, self.fc1.bias, self.fc2.weight, self.fc2.bias)
        return MLPLayer(*weights, self.gated)


class Block(nn.Module):
    """Pre-norm residual: x + mixer(norm(x)); with an MLP, then x + mlp(norm2(x)).

    `mixer` may be any module (batch, length, width) -> same; a Mixer reads its last position
    alone where nothing else is wanted.
    """

    def __init__(
        self, width: int, mixer: nn.Module, norm: NormKind = "layer", mlp: MLP | None = None
    ) -> None:
        super().__init__()
        self.norm = norm_of(norm, width)
        self.mixer = mixer
        self.norm2 = None if mlp is None else norm_of(norm, width)
        self.mlp = mlp

    def forward(self, x: Hidden, last: bool = False) -> ReadHidden:
        """Every position's output, or with `last` that of the last one alone, (batch, 1, width)."""
        return self.after_mixer(self._mixed(x, last=last))

    def after_mixer(self, x: ReadHidden) -> ReadHidden:
        """What the rest of the block makes of x + mixer(norm(x))."""
        if self.norm2 is None or self.mlp is None:
            return x
        return x + self.mlp(self.norm2(x))

    def _mixed(self, x: Hidden, *, last: bool) -> ReadHidden:
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


def _embedding_of(spec: ModelSpec) -> nn.Embedding:
    if spec.embedding == "trained":
        return _rows_of_length_one(spec.vocabulary, spec.width)
    rows = unit_embedding(spec.vocabulary, spec.width)
    return _undecayed(nn.Embedding.from_pretrained(rows, freeze=True))


def _rows_of_length_one(rows: int, width: int) -> nn.Embedding:
    """A trained embedding whose rows start random, about as long as the assignment's."""
    embedding = nn.Embedding(rows, width)
    nn.init.normal_(embedding.weight, std=width**-0.5)
    return _undecayed(embedding)


def _undecayed(embedding: nn.Embedding) -> nn.Embedding:
    """Marked as one that weight decay leaves alone."""
    embedding.weight._no_weight_decay = True  # type: ignore[attr-defined]
    return embedding


def _mlp_of(spec: ModelSpec) -> MLP | None:
    if spec.mlp == "none":
        return None
    return MLP(spec.width, spec.mlp_expand * spec.width, spec.mlp)
