"""What happens inside a model: attention weights, Delta, B and C, states, gates, as tensors."""

from torch import Tensor

from recall_arena.block import Block
from recall_arena.mixers import Mixer
from recall_arena.model import SequenceModel
from recall_arena.shapes import Tokens


def inspect(model: SequenceModel, tokens: Tokens) -> list[dict[str, Tensor]]:
    """For each layer, first to last, its tensors by name, at every position of the tokens.

        inspect(model, batch.tokens)[1]["weights"][0, 0, -1]   # what the query attends to

    "input" is what the mixer is given, normed, "output" what it gives, "stream" what the layer
    leaves in the residual stream, all (batch, length, width).  What stands between is named by the
    mixer: attention's q, k, v and weights; Mamba's Delta, A, B, C, D, u, states and gate; the gated
    delta rule's q, k, v, g, beta, states and gate; shapes are with each mixer's `inspected`.
    A module of another kind has its ends alone.

    Computed in plain PyTorch, as the definitions say it: states of all positions take memory.
    Gradients flow, unless within `torch.no_grad()`.  Raises ValueError if learned positions do not
    reach as far as the tokens.
    """
    x, found = model.embed(tokens), []
    for layer in model.layers:
        if isinstance(layer, Block):
            given = layer.norm(x)
            inside = layer.mixer.inspected(given) if isinstance(layer.mixer, Mixer) else {}
            output = layer.mixer(given)
            x = layer.after_mixer(x + output)
        else:
            given, inside = x, {}
            x = output = layer(x)
        found.append({"input": given, **inside, "output": output, "stream": x})
    return found
