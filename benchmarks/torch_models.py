"""Whole models in plain, eager PyTorch, with other people's mixers and the weights of ours."""

from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.torch_mixers import MixerMaker, PlainAttention, PlainMamba
from recall_arena.model import ModelSpec


class Block(nn.Module):
    """x + mixer(norm(x)), or its last position alone, (batch, 1, width)."""

    def __init__(self, width: int, mixer: nn.Module) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.mixer = mixer

    def forward(self, x: Tensor, last: bool = False) -> Tensor:
        if not last:
            return x + self.mixer(self.norm(x))
        if isinstance(self.mixer, PlainMamba | PlainAttention):
            return x[:, -1:] + self.mixer(self.norm(x), last=True)
        return x[:, -1:] + self.mixer(self.norm(x))[:, -1:]  # others have no shorter way to it


class EagerModel(nn.Module):
    """`recall_arena.model.SequenceModel` of eager operations, loaded from its weights.

    With `project_once` the first layer projects each token of the vocabulary once, instead of
    each position; that takes one of this package's eager mixers, and no positions.
    """

    def __init__(
        self,
        spec: ModelSpec,
        mixer: MixerMaker,
        weights: dict[str, Tensor],
        *,
        project_once: bool = False,
    ) -> None:
        super().__init__()
        self.project_once = project_once
        self.embedding = nn.Embedding(spec.vocabulary, spec.width).requires_grad_(False)
        self.positions: nn.Embedding | None = None
        if spec.max_length is not None:
            self.positions = nn.Embedding(spec.max_length, spec.width)
        self.layers = nn.ModuleList(
            Block(spec.width, mixer(name, spec.width)) for name in spec.layers
        )
        self.norm_f = nn.LayerNorm(spec.width)
        self.lm_head = nn.Linear(spec.width, spec.vocabulary, bias=False)
        self.load_state_dict(weights, strict=True)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (batch, length) to the logits after the last one."""
        x = self.embedding(tokens)
        if self.positions is not None:
            x = x + self.positions.weight[: tokens.shape[1]]
        *before, final = cast("list[Block]", list(self.layers))
        if self.project_once:
            x, before = x + self._first(tokens, before[0]), before[1:]
        for block in before:
            x = block(x)
        return self.lm_head(self.norm_f(final(x, last=True)[:, 0]))

    def _first(self, tokens: Tensor, block: Block) -> Tensor:
        mixer = cast("PlainMamba | PlainAttention", block.mixer)
        each = F.linear(block.norm(self.embedding.weight), mixer.in_proj.weight)
        return mixer.of_projected(F.embedding(tokens, each))
