"""A sequence model: embedding, mixers with norm and residual, readout of the last position.

A model is spelled by the names of its mixers: ("mamba", "attention") is the whole difference
between Hybrid-A and Mamba.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, cast

import numpy as np
import torch
from torch import nn

from recall_arena.hooks import Hooks
from recall_arena.kernels import Norm, Stack, StackLoss, stack_logits
from recall_arena.mixers import MIXERS, Mixer
from recall_arena.mixers.mixer import State
from recall_arena.names import unknown
from recall_arena.shapes import Answers, Hidden, LastHidden, Logits, Tokens
from recall_arena.zoo import ZOO, Positions

CompiledLoss = Callable[[Tokens, Answers], torch.Tensor | None]

AT_ONCE = 1 << 13
"""Tokens of a sequence beyond which a forward pass without gradients works in parts."""


@dataclass(frozen=True)
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

    __pydantic_config__: ClassVar = {"extra": "forbid"}  # a misspelt field is an error

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


def name_of(spec: ModelSpec) -> str:
    """The name that `named` takes for these layers and positions."""
    for name, model in ZOO.items():
        if (model.layers, model.positions) == (spec.layers, spec.positions):
            return name
    return ",".join(spec.layers)


def unit_embedding(vocabulary: int, width: int) -> torch.Tensor:
    """The assignment's embedding: rows from N(0, 1), scaled to unit length; float32.

    The numbers are those of `numpy.random.seed(0); numpy.random.randn(vocabulary, width)`,
    drawn without touching numpy's global generator.
    """
    rows = np.random.RandomState(0).randn(vocabulary, width)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return torch.from_numpy(rows).float()


class Block(nn.Module):
    """Pre-norm residual: x + mixer(norm(x))."""

    def __init__(self, width: int, mixer: Mixer) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.mixer = mixer

    def forward(self, x: Hidden) -> Hidden:
        return self.mixer.residual(x, self.norm)

    def continued(self, x: Hidden, state: State | None) -> tuple[Hidden, State]:
        """The next positions' outputs, and the mixer's state after them."""
        y, state = self.mixer.continued(self.norm(x), state)
        return x + y, state

    def last(self, x: Hidden) -> LastHidden:
        """The last position's output; the same numbers as forward(x)[:, -1] for less work."""
        return self.mixer.last_residual(x, self.norm)


class SequenceModel(nn.Module):
    """Tokens to the logits after the last one.  The embedding is frozen, the readout not tied."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        rows = unit_embedding(spec.vocabulary, spec.width)
        self.embedding = nn.Embedding.from_pretrained(rows, freeze=True)
        self.positions: nn.Embedding | None = None
        if spec.max_length is not None:
            self.positions = nn.Embedding(spec.max_length, spec.width)
            nn.init.normal_(self.positions.weight, std=spec.width**-0.5)  # as long as a token's row
        self.layers = nn.ModuleList(
            Block(spec.width, MIXERS[name](spec.width)) for name in spec.layers
        )
        self.norm_f = nn.LayerNorm(spec.width)
        self.lm_head = nn.Linear(spec.width, spec.vocabulary, bias=False)

    def forward(self, tokens: Tokens) -> Logits:
        """Long sequences are worked through in parts where no gradient is wanted.

        Raises ValueError if learned positions do not reach as far as the tokens.
        """
        if not torch.is_grad_enabled():
            if tokens.shape[1] > AT_ONCE and self.continues:
                return self.in_parts(tokens)
            stack = self._stack()
            logits = None if stack is None else stack_logits(stack, tokens)
            if logits is not None:
                return logits
        x = self._embed(tokens, 0)
        *before, final = self._blocks()
        for block in before:
            x = block(x)
        return self.lm_head(self.norm_f(final.last(x)))

    @torch.no_grad()
    def in_parts(self, tokens: Tokens, part: int = AT_ONCE) -> Logits:
        """The same logits, `part` tokens at a time, in memory that does not grow with the length.

        No gradient flows.  Raises NotImplementedError if a mixer keeps every token of the past,
        as attention does.
        """
        blocks = self._blocks()
        states: list[State | None] = [None] * len(blocks)
        for begin in range(0, tokens.shape[1], part):
            x = self._embed(tokens[:, begin : begin + part], begin)
            for i, block in enumerate(blocks):
                x, states[i] = block.continued(x, states[i])
        return self.lm_head(self.norm_f(x[:, -1]))

    def loss_with_gradient(self, tokens: Tokens) -> CompiledLoss | None:
        """A function from a batch to its loss that leaves the weights' gradients in their `grad`.

        It serves batches like `tokens`, and gives None where hooks want to see the model's parts.
        There is no such function where the kernel for whole models does not take this one.
        """
        stack = self._stack()
        if stack is None or not stack.fits(tokens) or stack.embedding.requires_grad:
            return None
        loss, hooks = StackLoss(stack), Hooks(self)
        return lambda tokens, answers: None if hooks else loss(tokens, answers)

    @property
    def continues(self) -> bool:
        """Whether `in_parts` can work through a sequence: no mixer keeps every token."""
        return all(block.mixer.continues for block in self._blocks())

    def state_size(self, context: int) -> int:
        """How many numbers the layers must keep after `context` tokens to go on without them."""
        return sum(block.mixer.state_size(context) for block in self._blocks())

    def trained_parameters(self) -> int:
        """How many numbers training changes."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)

    def _blocks(self) -> list[Block]:
        return cast("list[Block]", list(self.layers))

    def _stack(self) -> Stack | None:
        """This model for the kernel for whole models, if all its parts are what it knows."""
        blocks = self._blocks()
        embeddings = filter(None, (self.embedding, self.positions))
        known = (
            type(self) is SequenceModel
            and all(type(each) is nn.Embedding and each.max_norm is None for each in embeddings)
            and all(type(block) is Block and _is_plain(block.norm) for block in blocks)
            and _is_plain(self.norm_f)
            and type(self.lm_head) is nn.Linear
            and self.lm_head.bias is None
        )
        if not known or Hooks(self):
            return None
        found = (block.mixer.layer(block.norm) for block in blocks)
        layers = tuple(layer for layer in found if layer is not None)
        positions = None if self.positions is None else self.positions.weight
        norm, lm_head = Norm.of(self.norm_f), self.lm_head.weight
        stack = Stack(self.embedding.weight, positions, layers, norm, lm_head)
        weights = stack.weights()
        own = len({id(w) for w in weights}) == len(weights)  # none has two places
        whole = len(layers) == len(blocks) and own and all(type(w) is nn.Parameter for w in weights)
        return stack if whole else None

    def _embed(self, tokens: Tokens, begin: int) -> Hidden:
        """The rows of tokens that stand from position `begin` on."""
        x = self.embedding(tokens)
        if self.positions is None:
            return x
        end, reach = begin + tokens.shape[1], self.positions.num_embeddings
        if end > reach:
            raise ValueError(f"learned positions reach {reach} tokens, got a sequence of {end}")
        return x + self.positions.weight[begin:end]


def _is_plain(norm: nn.Module) -> bool:
    """Whether this is torch's layer norm with a weight and a bias."""
    return type(norm) is nn.LayerNorm and norm.weight is not None and norm.bias is not None
