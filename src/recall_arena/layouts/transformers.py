"""transformers' MambaForCausalLM (5.23): Mamba layers alone, with RMSNorm."""

from typing import Any

from recall_arena.config import frozen
from recall_arena.layouts.layout import EPSILON, Layout, read_known, shared, the_one
from recall_arena.mixers import Mamba
from recall_arena.mixers.mamba import usual_rank
from recall_arena.mixers.text import write_mixer
from recall_arena.spec import ModelSpec


@frozen
class _Config:
    """What decides the function of a MambaForCausalLM, with the defaults of its MambaConfig.

    The others are about how it starts, and about generation.  residual_in_fp32 changes nothing
    where all is float32.
    """

    vocab_size: int = 50280
    hidden_size: int = 768
    state_size: int = 16
    num_hidden_layers: int = 32
    layer_norm_epsilon: float = EPSILON
    expand: int = 2
    conv_kernel: int = 4
    use_bias: bool = False
    use_conv_bias: bool = True
    hidden_act: str = "silu"
    time_step_rank: int | str = "auto"
    tie_word_embeddings: bool = True


def _read(config: dict[str, Any]) -> tuple[ModelSpec, bool]:
    if config["model_type"] != "mamba":
        raise ValueError(f"model_type must be 'mamba', got {config['model_type']!r}")
    theirs = read_known(_Config, config)
    if theirs.layer_norm_epsilon != EPSILON:
        raise ValueError(f"layer_norm_epsilon must be {EPSILON}, got {theirs.layer_norm_epsilon}")
    if theirs.hidden_act not in ("silu", "swish"):
        raise ValueError(f"hidden_act must be 'silu', got {theirs.hidden_act!r}")
    mamba = Mamba(
        state=theirs.state_size,
        expand=theirs.expand,
        window=theirs.conv_kernel,
        rank=theirs.time_step_rank if isinstance(theirs.time_step_rank, int) else None,
        bias=theirs.use_bias,
        conv_bias=theirs.use_conv_bias,
    )
    layers = (shared(mamba, theirs.hidden_size),) * theirs.num_hidden_layers
    sizes = (theirs.vocab_size, theirs.hidden_size)
    spec = ModelSpec(layers, *sizes, norm="rms", embedding="trained")
    return spec, theirs.tie_word_embeddings


def _check(spec: ModelSpec) -> None:
    """Raises ValueError for what a MambaForCausalLM does not have."""
    for i, options in enumerate(spec.mixers):
        if not isinstance(options, Mamba):
            raise ValueError(
                f"layer {i} is {write_mixer(options)}: MambaForCausalLM has Mamba layers alone; "
                "the layout mamba-ssm takes attention as well"
            )
    wanted = {"norm": "rms", "mlp": "none", "positions": "none"}
    for name, value in wanted.items():
        if getattr(spec, name) != value:
            raise ValueError(f"{name}={getattr(spec, name)}: MambaForCausalLM has {name}={value}")


def _write(spec: ModelSpec) -> dict[str, Any]:
    _check(spec)
    mambas = [shared(each, spec.width) for each in spec.mixers if isinstance(each, Mamba)]
    mamba = the_one(mambas, "MambaForCausalLM")
    return {
        "architectures": ["MambaForCausalLM"],
        "model_type": "mamba",
        "vocab_size": spec.vocabulary,
        "hidden_size": spec.width,
        "intermediate_size": mamba.expand * spec.width,
        "state_size": mamba.state,
        "num_hidden_layers": len(mambas),
        "layer_norm_epsilon": EPSILON,
        "expand": mamba.expand,
        "conv_kernel": mamba.window,
        "use_bias": mamba.bias,
        "use_conv_bias": mamba.conv_bias,
        "hidden_act": "silu",
        "time_step_rank": mamba.rank or usual_rank(spec.width),
        "residual_in_fp32": True,
        "tie_word_embeddings": False,
        **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id")),  # every token is one
    }


TRANSFORMERS = Layout("model.safetensors", "backbone.embeddings.weight", _read, _write)
