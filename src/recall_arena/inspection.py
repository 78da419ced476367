"""What happens inside a model: attention weights, Delta, B and C, states, gates, as tensors."""

from torch import Tensor, nn

from recall_arena.block import Block
from recall_arena.mixers import Mixer
from recall_arena.model import SequenceModel
from recall_arena.shapes import Hidden, Tokens
from recall_arena.watching import beside_forward


def inspect(model: SequenceModel, tokens: Tokens) -> list[dict[str, Tensor]]:
    """For each layer, first to last, its tensors by name, at every position of the tokens.

        inspect(model, batch.tokens)[1]["weights"][0, 0, -1]   # what the query attends to

    "input" is what the mixer is given, normed, "output" what it gives, "stream" what the layer
    leaves in the residual stream, all (batch, length, width).  What stands between is named by the
    mixer: attention's q, k, v and weights; Mamba's Delta, A, B, C, D, u, states and gate; the gated
    delta rule's q, k, v, g, beta, states and gate; shapes are with each mixer's `inspected`.
    A module of another kind has its ends alone.

    Computed in plain PyTorch, as the definitions say it: states of all positions take memory.
    Gradients flow, unless within `torch.no_grad()`.  Hooks and subclasses take part as they do
    when the model is called.  Raises ValueError if learned positions do not reach as far as the
    tokens, or a block does not call its mixer.
    """
    x, found = model.embed(tokens), []
    for layer in model.layers:
        mixer = layer.mixer if isinstance(layer, Block) else layer
        x, given, output = _ends(layer, mixer, x)
        inside = mixer.inspected(given) if isinstance(mixer, Mixer) and _tells(mixer) else {}
        found.append({"input": given, **inside, "output": output, "stream": x})
    return found


def _tells(mixer: Mixer) -> bool:
    """Whether its `inspected` is of its `forward`."""
    return "forward" not in vars(mixer) and beside_forward(type(mixer), "inspected")


def _ends(layer: nn.Module, mixer: nn.Module, x: Hidden) -> tuple[Hidden, Hidden, Hidden]:
    """What a layer gives, and what its mixer is given and gives meanwhile, as all hooks leave it.

    Raises ValueError if the layer does not call the mixer.
    """
    ends: list[tuple[Hidden, Hidden]] = []
    hook = mixer.register_forward_hook(lambda _, given, out: ends.append((given[0], out)))
    with hook:
        stream = layer(x)
    if not ends:
        raise ValueError(f"a {type(layer).__name__} does not call its mixer")
    return stream, *ends[-1]
