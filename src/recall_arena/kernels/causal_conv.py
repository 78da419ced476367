"""The short depthwise convolution before Mamba's scan (arXiv:2312.00752, figure 3), SiLU included.

y_t = silu(bias + sum_k weight[k] x_{t - window + 1 + k})      x is zero before the start
"""

from typing import Any

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from recall_arena.kernels import native, structs
from recall_arena.kernels.function import Operation, Tensors, compiled
from recall_arena.shapes import Channels

Window = Float[Tensor, "channels window"]
PerChannel = Float[Tensor, " channels"]


def linear_conv_definition(x: Channels, weight: Window, bias: PerChannel | None = None) -> Channels:
    """PyTorch's convolution, padded on the left only, no SiLU.  Any float type, any device."""
    padded = F.pad(x.transpose(1, 2), (weight.shape[1], 0))  # one more, for sequences of length 0
    y = F.conv1d(padded, weight.unsqueeze(1), bias, groups=x.shape[2])[..., 1:]
    return y.transpose(1, 2)


def causal_conv_definition(x: Channels, weight: Window, bias: PerChannel | None = None) -> Channels:
    """The same with its SiLU."""
    return F.silu(linear_conv_definition(x, weight, bias))


def causal_conv(x: Channels, weight: Window, bias: PerChannel | None = None) -> Channels:
    """silu(depthwise causal convolution of x along `length`).

    x (batch, length, channels); weight (channels, window); bias (channels,) or None.  Runs compiled
    for float32 on the CPU with a window of at most 16; otherwise as the definition.  Bit-identical
    from call to call, for any number of threads.  Raises ValueError if the shapes do not fit.
    """
    biases = native.given(bias)
    if any(shape != x.shape[2:] for shape in (weight.shape[:1], *(b.shape for b in biases))):
        raise ValueError(
            "x must be (batch, length, channels), weight (channels, window), bias (channels,); "
            f"got {', '.join(str(tuple(each.shape)) for each in (x, weight, *biases))}"
        )
    if native.fits(x, weight, *biases) and weight.shape[1] <= native.LARGEST_WINDOW:
        return compiled(_CONV, x, weight, bias)
    return causal_conv_definition(x, weight, bias)


Inputs = tuple[Tensor, Tensor, Tensor | None]


class _Conv(Operation):
    def definition(self, *tensors: Any) -> Tensor:
        return causal_conv_definition(*tensors)

    def forward(self, tensors: Inputs, *, train: bool) -> tuple[Tensor, Tensors]:
        x, weight, bias = _in_rows(tensors)
        out = x.new_empty(x.shape)
        arguments = _arguments(x, weight, bias)
        arguments.out = out.data_ptr()
        native.call("recall_conv_forward", arguments, native.threads(x.numel()))
        return out, ()

    def backward(self, tensors: Inputs, saved: Tensors, grad_out: Tensor) -> Tensors:
        x, weight, bias = _in_rows(tensors)
        window, channels = weight.shape
        grad_out = native.rows(grad_out)
        grad_x = x.new_empty(x.shape)
        partial = x.new_empty(x.shape[0], window + 1, channels)

        arguments = _arguments(x, weight, bias)
        arguments.grad_out, arguments.grad_out_stride = grad_out.data_ptr(), grad_out.stride(1)
        arguments.grad_x, arguments.grad_x_stride = grad_x.data_ptr(), channels
        arguments.grad_weight = partial.data_ptr()
        arguments.grad_bias = partial[0, window].data_ptr()
        native.call("recall_conv_backward", arguments, native.threads(x.numel()))
        return grad_x, partial[0, :window].t(), None if bias is None else partial[0, window]


_CONV = _Conv()


def _in_rows(tensors: Inputs) -> Inputs:
    """The tensors as the kernel reads them; the weight comes transposed."""
    x, weight, bias = tensors
    return native.rows(x), weight.t().contiguous(), None if bias is None else bias.contiguous()


def _arguments(x: Tensor, weight: Tensor, bias: Tensor | None) -> structs.Conv:
    batch, length, channels = x.shape
    return structs.Conv(
        batch=batch,
        length=length,
        channels=channels,
        window=weight.shape[0],
        x=x.data_ptr(),
        x_stride=x.stride(1),
        weight=weight.data_ptr(),
        bias=native.address(bias),
    )
