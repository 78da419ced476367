"""A model's compiled form: one kernel call from token ids to logits, or to every gradient.

`Compiled(model)` is the model's function by the shortest way that there is.  Where the kernel
for whole models would not compute what the model computes now (a hook, a replaced part, a
subclass, another type of number), the model itself is called.
"""

import sys
from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recall_arena.kernels import Layer, Norm, PreNorm, Stack, StackLogits, StackLoss
from recall_arena.mixers import Mixer
from recall_arena.model import MLP, Block, SequenceModel, sinusoids
from recall_arena.shapes import Answers, Logits, Tokens, Where
from recall_arena.watching import Watch, stock, watched

AT_ONCE = 1 << 13
"""Tokens of a sequence beyond which logits are computed piece by piece, where that is possible."""

NO_ANSWER = torch.iinfo(torch.int64).min
"""What the loss may leave out, since no answer is this; PyTorch would leave out -100."""


class Compiled:
    """A model as two functions: `logits`, and `loss_and_gradient`.

    It follows the model: weights may change or move, parts may be replaced and hooks come and go
    between calls.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._plan: _Plan | None = None

    @torch.no_grad()
    def logits(self, tokens: Tokens, where: Where | None = None) -> Logits:
        """The logits (batch, vocabulary) after the last of the tokens, or (batch, asked,
        vocabulary) at the positions `where`; in evaluation mode, and no gradient flows.

        Raises IndexError for a token that is not in the vocabulary or a position that is not in
        the sequence, ValueError if learned positions do not reach as far as the tokens.
        """
        if self._model.training:
            self._model.eval()
        if tokens.shape[1] > AT_ONCE and continues(self._model):
            return logits_by_pieces(cast(SequenceModel, self._model), tokens, where=where)
        plan = self._current(tokens.shape[1])
        compiled = None if plan is None else plan.logits(tokens, where)
        return _called(self._model, tokens, where) if compiled is None else compiled

    def loss_and_gradient(
        self, tokens: Tokens, answers: Answers, where: Where | None = None
    ) -> Tensor:
        """The mean cross-entropy, in training mode; each weight's gradient then is in its `grad`.

        The answers (batch,) follow the last of the tokens, or (batch, asked) the positions
        `where`.  What stood in `grad` is written over; a weight that wants no gradient gets none.
        Raises IndexError for a token or an answer that is not in the vocabulary or a position
        that is not in the sequence.
        """
        if not self._model.training:
            self._model.train()
        plan = self._current(tokens.shape[1])
        compiled = None if plan is None else plan.loss(tokens, answers, where)
        if compiled is not None:
            return compiled
        for weight in self._model.parameters():
            if weight.grad is not None:
                weight.grad.zero_()
        with torch.enable_grad():
            logits = _called(self._model, tokens, where)
            loss = F.cross_entropy(logits.flatten(0, -2), answers.flatten(), ignore_index=NO_ANSWER)
            loss.backward()
        return loss.detach()

    def _current(self, length: int) -> "_Plan | None":
        """The plan for the model as it is now and such sequences; None if there is none."""
        if self._plan is None or length > self._plan.reach or not self._plan.holds():
            stack = stack_of(self._model, length)
            self._plan = None if stack is None else _Plan(self._model, stack, length)
            if self._plan is not None and not self._plan.holds():
                self._plan = None  # somebody watches it
        return self._plan


def _called(model: nn.Module, tokens: Tokens, where: Where | None) -> Logits:
    """By the model itself; one that only knows its last position can be given tokens alone."""
    return model(tokens) if where is None else model(tokens, where)


class _Plan:
    """A model's stack, as long as the model stays what it was and no sequence is longer."""

    def __init__(self, model: nn.Module, stack: Stack, length: int) -> None:
        self.reach = length if cast(SequenceModel, model).sinusoidal else sys.maxsize
        self.holds = Watch(model).unchanged
        self.logits, self.loss = StackLogits(stack), StackLoss(stack)


def stack_of(model: nn.Module, length: int) -> Stack | None:
    """What the kernel for whole models is given; None if it would not compute the same.

    Fixed positions reach `length` tokens.  Hooks are not looked at; `Watch` does that.
    """
    if type(model) is not SequenceModel:
        return None
    embeddings = [e for e in (model.embedding, model.positions) if e is not None]
    known = all(stock(e, nn.Embedding, "weight") and _is_plain(e) for e in embeddings)
    known = known and stock(model.lm_head, nn.Linear, "weight")
    norm = _norm(model.norm_f)
    blocks = [each for block in model.layers for each in _pre_norms(block)]
    found = tuple(each for each in blocks if each is not None)
    if not known or norm is None or len(found) < len(blocks):
        return None
    embedding = model.embedding.weight
    stack = Stack(embedding, _positions(model, length), found, norm, model.lm_head.weight)
    read = stack.weights() if stack.embeds else (embedding, *stack.weights())
    weights = [w for w in read if not (model.sinusoidal and w is stack.positions)]
    distinct = len({id(w) for w in weights}) == len(weights)  # none has two places
    return stack if distinct and all(type(w) is nn.Parameter for w in weights) else None


def _positions(model: SequenceModel, length: int) -> Tensor | None:
    if model.sinusoidal:
        weight = model.embedding.weight
        return sinusoids(length, weight.shape[1], weight.detach())
    return None if model.positions is None else model.positions.weight


def _pre_norms(block: nn.Module) -> Iterator[PreNorm | None]:
    """That of the mixer and that of an MLP; None for one that the kernel would not compute."""
    if type(block) is not Block:
        yield None
        return
    mixer = block.mixer.layer() if isinstance(block.mixer, Mixer) else None
    yield _pre_norm(block.norm, mixer)
    if block.norm2 is not None and block.mlp is not None:
        yield _pre_norm(block.norm2, block.mlp.layer() if isinstance(block.mlp, MLP) else None)


def _pre_norm(module: nn.Module, layer: Layer | None) -> PreNorm | None:
    norm = _norm(module)
    return None if norm is None or layer is None else PreNorm(norm, layer)


def _norm(module: nn.Module) -> Norm | None:
    if stock(module, nn.LayerNorm, "weight", "bias") or stock(module, nn.RMSNorm, "weight"):
        return Norm.of(cast("nn.LayerNorm | nn.RMSNorm", module))
    return None


def _is_plain(embedding: nn.Embedding) -> bool:
    """Whether its rows are just looked up, and all get their gradient as it is."""
    special = (embedding.max_norm, embedding.padding_idx)
    return special == (None, None) and not (embedding.scale_grad_by_freq or embedding.sparse)


# Long sequences


def continues(model: nn.Module) -> bool:
    """Whether its past fits into a state of fixed size, and no hook wants whole sequences."""
    return (
        type(model) is SequenceModel
        and not watched(model.modules())
        and all(type(b) is Block and _continues(b.mixer) for b in model.layers)
    )


def _continues(mixer: nn.Module) -> bool:
    return isinstance(mixer, Mixer) and mixer.continues


@torch.no_grad()
def logits_by_pieces(
    model: SequenceModel, tokens: Tokens, piece: int = AT_ONCE, where: Where | None = None
) -> Logits:
    """The same logits, `piece` tokens at a time, in memory that does not grow with the length
    where `continues(model)`.

    Raises IndexError for a position that is not in the sequence.
    """
    last = tokens.shape[1] - 1
    asked = torch.full_like(tokens[:, :1], last) if where is None else where
    asked = asked.expand(len(tokens), -1)
    if not ((asked >= 0) & (asked <= last)).all():
        raise IndexError(f"index out of range: positions must be in 0..{last}")
    read, state = None, None
    for begin in range(0, tokens.shape[1], piece):
        x, state = model.stream(tokens[:, begin : begin + piece], state)
        here = (asked >= begin) & (asked < begin + piece)
        read = x.new_empty(asked.numel(), x.shape[2]) if read is None else read
        read[here.flatten()] = x[here.nonzero()[:, 0], asked[here] - begin]
    logits = model.lm_head(model.norm_f(read))
    return logits if where is None else logits.unflatten(0, asked.shape)
