"""What the properties share: fixed inputs, gradients, and what a broken promise raises."""

import torch
from torch import Tensor, nn

from recall_arena.mixers import Mixer
from recall_arena.seeds import generator


class Broken(Exception):
    """A property does not hold; the message says where, and what was measured."""


def within(error: float, limit: float, what: str) -> str:
    """The error for people; raises Broken if it is above the limit, or no number."""
    if not error <= limit:
        raise Broken(f"{what} is off by {error:.2g}, and may be by {limit:.2g}")
    return f"{error:.1g}"


def normal(*shape: int) -> Tensor:
    """Numbers from N(0, 1) in float64, the same for every shape each time."""
    return torch.randn(shape, generator=generator(*shape), dtype=torch.double)


def outputs(mixer: nn.Module, x: Tensor) -> Tensor:
    """The mixer's outputs; raises Broken if they have another shape or type than its inputs."""
    out: Tensor = mixer(x)
    if (out.shape, out.dtype) != (x.shape, x.dtype):
        raise Broken(f"of {x.dtype} {tuple(x.shape)} it makes {out.dtype} {tuple(out.shape)}")
    return out


def gradients(out: Tensor, mixer: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """The gradients of x and of each parameter from one fixed gradient of the output.

    Raises Broken if the output does not depend on one of them at all.
    """
    wanted = {"x": x, **dict(mixer.named_parameters())}
    arriving = normal(*out.shape).to(out.dtype)
    found = torch.autograd.grad(out, list(wanted.values()), arriving, allow_unused=True)
    named = dict(zip(wanted, found, strict=True))
    for name, gradient in named.items():
        if gradient is None:
            raise Broken(f"{name} has no gradient: no output depends on it")
    return named


def asked(mixer: nn.Module) -> tuple[bool, ...]:
    """How a mixer can be asked: for all positions, and a Mixer also for the last one."""
    return (False, True) if isinstance(mixer, Mixer) else (False,)


def read(mixer: nn.Module, x: Tensor, *, last: bool) -> dict[str, Tensor]:
    """The output at all positions or the last one, and the gradients of x and the parameters."""
    out = mixer(x, last=True) if last else outputs(mixer, x)
    return {"the output": out.detach(), **gradients(out, mixer, x)}


def difference(one: Tensor, other: Tensor) -> float:
    """The largest difference, as a multiple of the largest number; 0 for what is all zero."""
    largest = other.abs().max().clamp(min=1e-9)
    return float(((one - other).abs().max() / largest).detach())
