"""Causal self-attention (Vaswani et al. 2017, arXiv:1706.03762), with several kinds of positions.

RoPE is arXiv:2104.09864, xPos arXiv:2212.10554.  Short convolutions of queries, keys and values
before they meet are those of convolution-augmented transformers (CAT, arXiv:2407.05591).
"""

from typing import cast

import torch
from torch import Tensor, nn

from recall_arena.config import frozen
from recall_arena.kernels import AttentionLayer, attention_mixer_definition, mix
from recall_arena.kernels.attention_mixer import (
    Positions,
    attended,
    positioned,
    projected,
    split_heads,
)
from recall_arena.kernels.causal_attention import attention_weights
from recall_arena.mixers.convolution import CausalConv1d, carried, stock_causal, window_of
from recall_arena.mixers.mixer import Mixer, MixerOptions, State, check_positive
from recall_arena.shapes import Hidden, ReadHidden
from recall_arena.watching import bias_of, stock, watched


@frozen
class Attention(MixerOptions):
    """The options of attention.

    Attributes:
        heads: they divide the width
        positions: how queries and keys know where they stand; "none" is NoPE
        base: of the angles of RoPE and xPos
        bias: whether in_proj and out_proj have biases
        q_window: positions that a depthwise causal convolution of the queries sees; 1 for none
        k_window: the same of the keys
        v_window: the same of the values

    Raises:
        ValueError: for heads or a window below 1, a base that is not above 1
    """

    heads: int = 1
    positions: Positions = "none"
    base: float = 10_000.0
    bias: bool = False
    q_window: int = 1
    k_window: int = 1
    v_window: int = 1

    def __post_init__(self) -> None:
        check_positive(self, "heads", "q_window", "k_window", "v_window")
        if not self.base > 1:
            raise ValueError(f"base must be above 1, got {self.base}")

    def check(self, width: int) -> None:
        super().check(width)
        if width % self.heads:
            raise ValueError(f"heads must divide the width {width}, got {self.heads}")
        head_width = width // self.heads
        if self.positions != "none" and head_width % 2:
            raise ValueError(
                f"{self.positions} rotates pairs of numbers: a head's width must be even, "
                f"got {head_width}"
            )

    def build(self, width: int) -> "AttentionMixer":
        self.check(width)
        return AttentionMixer(width, self)


class AttentionMixer(Mixer):
    """Softmax attention over the past."""

    def __init__(self, width: int, options: Attention) -> None:
        super().__init__()
        self.width = width
        self.heads, self.positions, self.base = options.heads, options.positions, options.base
        self.in_proj = nn.Linear(width, 3 * width, bias=options.bias)
        windows = (options.q_window, options.k_window, options.v_window)
        self.q_conv1d, self.k_conv1d, self.v_conv1d = (
            None if window == 1 else CausalConv1d(width, window) for window in windows
        )
        self.out_proj = nn.Linear(width, width, bias=options.bias)

    def forward(self, x: Hidden, last: bool = False) -> ReadHidden:
        layer = self.layer()
        if layer is not None:
            return mix(layer, x, last=last)
        return attention_mixer_definition(
            *(x, self.in_proj, self.out_proj, self.heads),
            positions=self.positions,
            base=self.base,
            each=self._convolutions,
            last=last,
        )

    def layer(self) -> AttentionLayer | None:
        projections = (self.in_proj, self.out_proj)
        convolutions = self._convolutions
        plain = all(stock(each, nn.Linear, "weight", *bias_of(each)) for each in projections)
        plain = plain and all(map(stock_causal, convolutions))
        plain = plain and self.positions != "xpos" and not watched(self.children())
        if type(self) is not AttentionMixer or not plain:
            return None
        q_conv, k_conv, v_conv = (
            None if conv is None else cast(CausalConv1d, conv).weight for conv in convolutions
        )
        return AttentionLayer(
            self.in_proj.weight,
            self.in_proj.bias,
            *(q_conv, k_conv, v_conv),
            *(self.out_proj.weight, self.out_proj.bias),
            self.heads,
            self.base if self.positions == "rope" else None,
        )

    def continued(self, x: Hidden, state: State | None) -> tuple[Hidden, State]:
        """The state: keys and values so far, (batch, length, width) each, not rotated; and of
        queries, keys and values what their convolutions still see, (batch, window - 1, width)."""
        past_k, past_v, *tails = (None,) * 5 if state is None else state
        windows = map(window_of, self._convolutions)
        parts = zip(
            self._convolutions, self.in_proj(x).chunk(3, dim=2), tails, windows, strict=True
        )
        (q, *of_q), (k, *of_k), (v, *of_v) = (carried(*each) for each in parts)
        k = k if past_k is None else torch.cat([past_k, k], dim=1)
        v = v if past_v is None else torch.cat([past_v, v], dim=1)
        y = attended(q, k, v, self.heads, self.positions, self.base)
        return self.out_proj(y), (k, v, *of_q, *of_k, *of_v)

    def inspected(self, x: Hidden) -> dict[str, Tensor]:
        """q, k and v (batch, heads, length, head_width) as they meet, convolved and rotated; the
        softmax's weights (batch, heads, length of queries, length of keys)."""
        parts = projected(x, self.in_proj, self._convolutions)
        q, k, v = (split_heads(part, self.heads) for part in parts)
        q, k = positioned(q, k, self.positions, self.base)
        return {"q": q, "k": k, "v": v, "weights": attention_weights(q, k)}

    @property
    def _convolutions(self) -> tuple[nn.Module | None, ...]:
        return self.q_conv1d, self.k_conv1d, self.v_conv1d

    def state_size(self, context: int) -> int:
        """A key and a value for each token, and the inputs that the convolutions still see."""
        seen = sum(min(window_of(conv) - 1, context) for conv in self._convolutions)
        return (2 * context + seen) * self.width
