"""The gated delta rule as people run it on a CPU: transformers' functions and eager PyTorch.

The mixer takes the weights of ours under the same names; none calls a kernel of ours.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.measuring import optional
from recall_arena.kernels import causal_conv_definition, gated_delta_definition


def transformers_delta(*, chunked: bool) -> Callable[..., Tensor]:
    """What transformers runs for a gated delta rule on a CPU, in chunks of 64 or step by step.

    The function raises Unavailable if transformers is not installed.
    """

    def rule(q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor) -> Tensor:
        with optional():
            from transformers import logging
            from transformers.models.qwen3_next import modeling_qwen3_next as qwen
        logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # fla is advised
        chunks, steps = qwen.torch_chunk_gated_delta_rule, qwen.torch_recurrent_gated_delta_rule
        out, _ = (chunks if chunked else steps)(q, k, v, g, beta, use_qk_l2norm_in_kernel=True)
        return out

    return rule


class PlainGatedDelta(nn.Module):
    """The gated delta rule's mixer with one head, of eager operations around a rule."""

    def __init__(self, width: int, rule: Callable[..., Tensor], window: int = 4) -> None:
        super().__init__()
        channels = 4 * width
        self.rule = rule
        self.split = [channels, 1, 1, 2 * width]
        self.in_proj = nn.Linear(width, sum(self.split), bias=False)
        self.conv1d = nn.Conv1d(
            channels, channels, window, groups=channels, padding=window - 1, bias=False
        )
        self.A_log = nn.Parameter(torch.zeros(1))
        self.dt_bias = nn.Parameter(torch.zeros(1))
        self.o_norm = nn.RMSNorm(2 * width, eps=1e-5)
        self.out_proj = nn.Linear(2 * width, width, bias=False)

    def forward(self, x: Tensor, last: bool = False) -> Tensor:
        out = self.of_projected(self.in_proj(x))
        return out[:, -1:] if last else out

    def of_projected(self, projected: Tensor) -> Tensor:
        """Every position's output, from that of in_proj."""
        mixed, b, a, z = projected.split(self.split, dim=-1)
        mixed = causal_conv_definition(mixed, self.conv1d.weight.squeeze(1))
        width = self.out_proj.out_features
        q, k, v = (x.unsqueeze(2) for x in mixed.split([width, width, 2 * width], dim=-1))
        g = -self.A_log.exp() * F.softplus(a + self.dt_bias)
        o = self.rule(q, k, v, g, b.sigmoid()).squeeze(2)
        return self.out_proj(self.o_norm(o) * F.silu(z))


def definition_of_delta(q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor) -> Tensor:
    """Ours, step by step."""
    return gated_delta_definition(q, k, v, g, beta, normalised=True)[0]
