"""A block of a sequence model: norm, mixer and residual; with an MLP, the same once more."""

from torch import nn

from recall_arena.kernels import MLPLayer, mlp_definition
from recall_arena.mixers import Mixer
from recall_arena.mixers.mixer import State, recomputed
from recall_arena.shapes import Hidden, ReadHidden
from recall_arena.spec import MLPKind, NormKind
from recall_arena.watching import as_written, bias_of, remember, stock, watched


def norm_of(kind: NormKind, width: int) -> nn.LayerNorm | nn.RMSNorm:
    """A norm of vectors of `width` numbers."""
    return nn.LayerNorm(width) if kind == "layer" else nn.RMSNorm(width, eps=1e-5)


@remember
class MLP(nn.Module):
    """fc2 gelu(fc1 x), or SwiGLU; see `kernels/mlp.py`."""

    def __init__(self, width: int, hidden: int, kind: MLPKind) -> None:
        super().__init__()
        self.gated = kind == "swiglu"
        self.fc1 = nn.Linear(width, 2 * hidden if self.gated else hidden, bias=not self.gated)
        self.fc2 = nn.Linear(hidden, width, bias=not self.gated)

    def forward(self, x: ReadHidden) -> ReadHidden:
        """Each position's output from its own numbers."""
        return mlp_definition(x, self.fc1, self.fc2, gated=self.gated)

    def layer(self) -> MLPLayer | None:
        """What the kernel for whole models is given; None where something has been replaced."""
        parts = (self.fc1, self.fc2)
        plain = all(stock(each, nn.Linear, "weight", *bias_of(each)) for each in parts)
        if type(self) is not MLP or not plain:
            return None
        weights = (self.fc1.weight, self.fc1.bias, self.fc2.weight, self.fc2.bias)
        return MLPLayer(*weights, self.gated)


@remember
class Block(nn.Module):
    """Pre-norm residual: x + mixer(norm(x)); with an MLP, then x + mlp(norm2(x)).

    `mixer` may be any module (batch, length, width) -> same; a Mixer reads its last position
    alone where nothing else is wanted.
    """

    def __init__(
        self, width: int, mixer: nn.Module, norm: NormKind = "layer", mlp: MLP | None = None
    ) -> None:
        super().__init__()
        self.norm = norm_of(norm, width)
        self.mixer = mixer
        self.norm2 = None if mlp is None else norm_of(norm, width)
        self.mlp = mlp

    def forward(self, x: Hidden, last: bool = False) -> ReadHidden:
        """Every position's output, or with `last` that of the last one alone, (batch, 1, width)."""
        return self.after_mixer(self._mixed(x, last=last))

    def continued(self, x: Hidden, state: State | None) -> tuple[Hidden, State]:
        """The outputs at further positions and the mixer's state after them: `Mixer.continued`."""
        y, state = continued(self.mixer, self.norm(x), state)
        return self.after_mixer(x + y), state

    def after_mixer(self, x: ReadHidden) -> ReadHidden:
        """What the rest of the block makes of x + mixer(norm(x))."""
        if self.norm2 is None or self.mlp is None:
            return x
        return x + self.mlp(self.norm2(x))

    def _mixed(self, x: Hidden, *, last: bool) -> ReadHidden:
        normed = self.norm(x)
        if not last:
            return x + self.mixer(normed)
        y = self.mixer(normed, last=True) if isinstance(self.mixer, Mixer) else self.mixer(normed)
        return x[:, -1:] + y[:, -1:]


def continued(layer: nn.Module, x: Hidden, state: State | None) -> tuple[Hidden, State]:
    """A mixer's or a block's outputs at further positions, and its state after them.

    One of another kind, any causal map, is given all of its inputs again.  Raises
    NotImplementedError where a hook waits for the layer itself to be called.
    """
    if (isinstance(layer, Mixer) or type(layer) is Block) and as_written(type(layer)):
        if watched([layer]):
            raise NotImplementedError(
                f"a hook watches a {type(layer).__name__}, which is not called as a whole where a "
                "sequence goes on from a state; its parts are, so a hook on one of them fires"
            )
        return layer.continued(x, state)
    return recomputed(layer, x, state)
