"""The selective scan of Mamba (Gu & Dao 2023, arXiv:2312.00752, section 3.2, algorithm 2).

    Delta_t = softplus(delta_t + delta_bias)
    h_t     = exp(Delta_t A) h_{t-1} + Delta_t u_t B_t          h_{-1} = 0
    y_t     = C_t . h_t + D u_t
    out_t   = y_t silu(z_t)                                     or y_t where z is None

`selective_scan_definition` says what this means; `selective_scan` says it fast, where the
compiled kernel takes the tensors.  The tests hold the second to the first, gradients included.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from recall_arena.kernels import native
from recall_arena.shapes import Channels, Selection

Transition = Float[Tensor, "channels state"]
PerChannel = Float[Tensor, " channels"]


def selective_scan_definition(
    u: Channels,
    delta: Channels,
    A: Transition,
    B: Selection,
    C: Selection,
    D: PerChannel,
    z: Channels | None,
    delta_bias: PerChannel,
) -> Channels:
    """One step after another: the equations, transcribed.  Any float type, any device."""
    delta = F.softplus(delta + delta_bias)
    h = u.new_zeros(u.shape[0], *A.shape)
    outputs = []
    for t in range(u.shape[1]):
        # Euler rather than zero-order hold for B, as in the authors' code.
        drive = (delta[:, t] * u[:, t]).unsqueeze(-1) * B[:, t].unsqueeze(1)
        h = torch.exp(delta[:, t].unsqueeze(-1) * A) * h + drive
        outputs.append((h * C[:, t].unsqueeze(1)).sum(-1))
    y = torch.stack(outputs, dim=1) + D * u if outputs else D * u
    return y if z is None else y * F.silu(z)


def selective_scan(
    u: Channels,
    delta: Channels,
    A: Transition,
    B: Selection,
    C: Selection,
    D: PerChannel,
    z: Channels | None,
    delta_bias: PerChannel,
) -> Channels:
    """(scan(softplus(delta + delta_bias)) + D u) silu(z), causal along `length`.

    u, delta, z (batch, length, channels); A (channels, state), negative; B, C (batch, length,
    state); D, delta_bias (channels,).  `z` may be None: then nothing gates the output.  Runs
    compiled for float32 on the CPU with at most 256 states; otherwise as the definition.
    Bit-identical from call to call, for any number of threads.  Raises ValueError if the shapes
    do not fit together.
    """
    _check_shapes(u, delta, A, B, C, D, z, delta_bias)
    gates = () if z is None else (z,)
    if native.fits(u, delta, A, B, C, D, delta_bias, *gates) and A.shape[1] <= native.LARGEST_STATE:
        out: Tensor = _CompiledScan.apply(u, delta, A, B, C, D, z, delta_bias)  # type: ignore[no-untyped-call]
        return out
    return selective_scan_definition(u, delta, A, B, C, D, z, delta_bias)


def _check_shapes(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    z: Tensor | None,
    delta_bias: Tensor,
) -> None:
    """The compiled kernel reads where the shapes say, so they are compared before it may."""
    sequences = u.shape == delta.shape and (z is None or z.shape == u.shape)
    channels, state = A.shape
    selections = B.shape == C.shape == (*u.shape[:2], state)
    if not (sequences and selections and D.shape == delta_bias.shape == u.shape[2:] == (channels,)):
        given = (u, delta, A, B, C, D, z, delta_bias)
        shapes = ", ".join("None" if t is None else str(tuple(t.shape)) for t in given)
        raise ValueError(
            "u, delta, z must be (batch, length, channels), A (channels, state), B, C (batch, "
            f"length, state), D, delta_bias (channels,); got {shapes}"
        )


class _CompiledScan(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        u: Tensor,
        delta: Tensor,
        A: Tensor,
        B: Tensor,
        C: Tensor,
        D: Tensor,
        z: Tensor | None,
        delta_bias: Tensor,
    ) -> Tensor:
        u, delta, B, C = native.rows(u), native.rows(delta), native.rows(B), native.rows(C)
        z = None if z is None else native.rows(z)
        A, D, delta_bias = A.t().contiguous(), D.contiguous(), delta_bias.contiguous()
        out = u.new_empty(u.shape)
        states = None
        if any(ctx.needs_input_grad):
            chunks = -(-u.shape[1] // native.SCAN_CHUNK)
            states = u.new_empty(u.shape[0], chunks, *A.shape)
        ctx.save_for_backward(u, delta, A, B, C, D, z, delta_bias, states)
        arguments = _arguments(u, delta, A, B, C, D, z, delta_bias, states)
        arguments.out = out.data_ptr()
        native.call("recall_scan_forward", arguments, native.threads(u.numel()))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        u, delta, A, B, C, D, z, delta_bias, states = ctx.saved_tensors
        batch, _, channels = u.shape
        state = A.shape[0]
        grad_out = native.rows(grad_out)
        grad_u, grad_delta = u.new_empty(u.shape), u.new_empty(u.shape)
        grad_z = None if z is None else u.new_empty(u.shape)
        grad_B, grad_C = u.new_empty(B.shape), u.new_empty(C.shape)
        shares = u.new_empty(batch, state + 2, channels)

        arguments = _arguments(u, delta, A, B, C, D, z, delta_bias, states)
        arguments.grad_out, arguments.grad_out_stride = grad_out.data_ptr(), grad_out.stride(1)
        arguments.grad_u, arguments.grad_delta = grad_u.data_ptr(), grad_delta.data_ptr()
        arguments.grad_z = None if grad_z is None else grad_z.data_ptr()
        arguments.grad_B, arguments.grad_C = grad_B.data_ptr(), grad_C.data_ptr()
        arguments.grad_A = shares.data_ptr()
        arguments.grad_D = shares[0, state].data_ptr()
        arguments.grad_bias = shares[0, state + 1].data_ptr()
        native.call("recall_scan_backward", arguments, native.threads(u.numel()))
        grad_A, grad_D, grad_bias = shares[0].split([state, 1, 1])
        return (
            *(grad_u, grad_delta, grad_A.t(), grad_B, grad_C),
            *(grad_D.squeeze(0), grad_z, grad_bias.squeeze(0)),
        )


def _arguments(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    z: Tensor | None,
    delta_bias: Tensor,
    states: Tensor | None,
) -> native.Scan:
    batch, length, channels = u.shape
    return native.Scan(
        batch=batch,
        length=length,
        channels=channels,
        state=A.shape[0],
        u=u.data_ptr(),
        delta=delta.data_ptr(),
        B=B.data_ptr(),
        C=C.data_ptr(),
        z=None if z is None else z.data_ptr(),
        u_stride=u.stride(1),
        delta_stride=delta.stride(1),
        B_stride=B.stride(1),
        C_stride=C.stride(1),
        z_stride=0 if z is None else z.stride(1),
        A=A.data_ptr(),
        D=D.data_ptr(),
        delta_bias=delta_bias.data_ptr(),
        states=None if states is None else states.data_ptr(),
    )
