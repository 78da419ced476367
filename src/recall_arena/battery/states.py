"""What a mixer remembers: it goes on from its state, and remembers no more than it claims."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from recall_arena.battery.probe import Broken, difference, normal, within
from recall_arena.mixers import Mixer

MOST = 80
"""Numbers of input up to which the rank of a derivative is cheap."""


def numbers_remembered(mixer: nn.Module, width: int, context: int) -> int:
    """The rank of the derivative of all later outputs by all earlier inputs.

    Whoever goes on from a state of n numbers passes the influence of the past through n
    numbers, so the rank is at most n.  As many outputs follow as inputs came before.
    """
    past, future = normal(2, context, width).split(1)
    numbers = context * width
    # One sequence for each later number: sequences do not mix, so one gradient has all rows.
    pasts = (3 * past).repeat(numbers, 1, 1).requires_grad_()
    out = mixer(torch.cat([pasts, future.expand(numbers, -1, -1)], dim=1))
    each = out[:, context:].flatten(1).diagonal()
    (derivative,) = torch.autograd.grad(each.sum(), pasts)
    singular = torch.linalg.svdvals(derivative.flatten(1))
    return int((singular > 1e-14 * singular[0]).sum())


def no_more_is_remembered_than_state_size_says(mixer: nn.Module, width: int) -> str:
    """After one, some and many tokens; only a Mixer claims a size."""
    if not isinstance(mixer, Mixer):
        return "not asked: it is no Mixer"
    measured = []
    for context in sorted({1, max(1, MOST // (5 * width)), max(1, MOST // width)}):
        rank, claimed = numbers_remembered(mixer, width, context), mixer.state_size(context)
        if rank > claimed:
            raise Broken(f"after {context} tokens {rank} numbers, and state_size says {claimed}")
        measured.append(f"{rank} of {claimed}")
    return f"numbers: {', '.join(measured)}"


def a_continued_sequence_is_the_whole_one(mixer: nn.Module, width: int) -> str:
    """Piece by piece, pieces of one token too; only a Mixer goes on from a state."""
    if not isinstance(mixer, Mixer):
        return "not asked: it is no Mixer"
    x = normal(2, 20, width)
    try:
        pieces = _continued(mixer, x.split([1, 7, 1, 2, 9], dim=1))
    except NotImplementedError as refusal:
        return f"refused: {refusal}"
    return within(difference(pieces, mixer(x)), 1e-10, "the sequence in 5 pieces")


@torch.no_grad()
def _continued(mixer: Mixer, pieces: Sequence[Tensor]) -> Tensor:
    outs: list[Tensor] = []
    state = None
    for piece in pieces:
        out, state = mixer.continued(piece, state)
        outs.append(out)
    return torch.cat(outs, dim=1)
