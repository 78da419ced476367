"""The MLP behind a mixer, each position by itself.

    fc2 gelu(fc1 x)                              GPT-2's, with the exact GELU (arXiv:1606.08415)
    fc2 (y silu(gate)), (y, gate) = fc1 x        SwiGLU (arXiv:2002.05202, section 2)

`mlp_definition` says what this means; `MLPLayer` is what the kernel for whole models is given.
"""

from dataclasses import dataclass
from functools import partial

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from recall_arena.kernels import structs
from recall_arena.kernels.layer import Layer, Map, Shape, head
from recall_arena.shapes import Hidden, ReadHidden


def mlp_definition(x: ReadHidden, fc1: Map, fc2: Map, *, gated: bool) -> ReadHidden:
    """The equations.  Any float type, any device; fc1 and fc2 are functions."""
    if not gated:
        return fc2(F.gelu(fc1(x)))
    y, gate = fc1(x).chunk(2, dim=-1)
    return fc2(y * F.silu(gate))


@dataclass(frozen=True)
class MLPLayer(Layer):
    """Its weights; fc1 has twice as many rows where it is gated."""

    KIND = structs.Kind.MLP
    MIXES = False

    fc1: Float[Tensor, "rows width"]
    fc1_bias: Float[Tensor, " rows"] | None
    fc2: Float[Tensor, "width hidden"]
    fc2_bias: Float[Tensor, " width"] | None
    gated: bool

    def check(self, width: int) -> None:
        hidden = self.fc2.shape[1]
        rows = 2 * hidden if self.gated else hidden
        shapes = {"fc1": (rows, width), "fc1_bias": (rows,), "fc2": (width, hidden)}
        for name, weight in self.named_weights().items():
            expected = shapes.get(name, (width,))
            if weight.shape != expected:
                raise ValueError(f"{name} must be {expected}, got {tuple(weight.shape)}")

    def has_room(self, length: int) -> bool:
        return True

    def definition(self, x: Hidden, *, last: bool) -> ReadHidden:
        fc1 = partial(F.linear, weight=self.fc1, bias=self.fc1_bias)
        fc2 = partial(F.linear, weight=self.fc2, bias=self.fc2_bias)
        return mlp_definition(x[:, -1:] if last else x, fc1, fc2, gated=self.gated)

    def saved(self, shape: Shape) -> dict[str, tuple[int, ...]]:
        return {"before": (shape.batch, shape.read, self.fc1.shape[0])}

    def arguments(self, shape: Shape) -> tuple[structs.MLP, None]:
        block = head(self, shape, self.fc1, self.fc2, self.fc1_bias, self.fc2_bias)
        return structs.MLP(block=block, hidden=self.fc2.shape[1], gated=self.gated), None

    def work(self, shape: Shape) -> int:
        return shape.batch * shape.read * self.fc2.shape[1]
