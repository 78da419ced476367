"""fla's delta rules here: their layouts and options, and transformers' models that call them."""

from typing import Any

import pytest
import torch
from compat_checks import CHAINED, EXACT, Inputs, assert_near, compiled, value_and_gradients
from torch import Tensor, nn
from transformers_models import delta_model, tokens

from recall_arena.compat import (
    chunk_delta_rule,
    chunk_gated_delta_rule,
    chunk_kda,
    fused_recurrent_delta_rule,
    fused_recurrent_gated_delta_rule,
    fused_recurrent_kda,
    use_in_transformers,
)
from recall_arena.compat.in_transformers import GATED_DELTA_MODELS, KDA_MODELS
from recall_arena.kernels import gated_delta_definition
from recall_arena.seeds import generator

BATCH, LENGTH, HEADS, KEYS, VALUES = 2, 9, 2, 3, 4


def delta_inputs(batch: int = BATCH, value_heads: int = HEADS, sequences: int = BATCH) -> Inputs:
    rng = generator("fla", batch, value_heads)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=rng, dtype=torch.float64)

    rates = (batch, LENGTH, value_heads)
    return {
        "q": normal(batch, LENGTH, HEADS, KEYS),
        "k": normal(batch, LENGTH, HEADS, KEYS),
        "v": normal(*rates, VALUES),
        "g": -normal(*rates).exp(),
        "beta": normal(*rates).sigmoid(),
        "initial_state": normal(sequences, value_heads, KEYS, VALUES),
        "output_final_state": True,
        "use_qk_l2norm_in_kernel": True,
    }


def by_definition(q, k, v, g, beta, initial_state=None, **_: Any) -> tuple[Tensor, Tensor]:
    group = v.shape[2] // k.shape[2]
    q, k = (x.repeat_interleave(group, dim=2) for x in (q, k))
    return gated_delta_definition(q, k, v, g, beta, initial_state, normalised=True)


def with_g_by_channel(inputs: Inputs) -> Inputs:
    return inputs | {"g": inputs["g"].unsqueeze(3) * torch.rand(KEYS, generator=generator("g"))}


@pytest.mark.parametrize("rule", [chunk_gated_delta_rule, fused_recurrent_gated_delta_rule])
@pytest.mark.parametrize("value_heads", [2, 6])
def test_a_rule_is_its_equations_with_groups_of_value_heads(rule, value_heads):
    inputs = delta_inputs(value_heads=value_heads)
    expected = value_and_gradients(by_definition, inputs, twice=True)
    assert_near(value_and_gradients(rule, inputs, twice=True), expected, EXACT)


@pytest.mark.parametrize("rule", [chunk_kda, fused_recurrent_kda])
def test_kda_is_its_equations(rule):
    inputs = with_g_by_channel(delta_inputs())
    expected = value_and_gradients(by_definition, inputs)
    assert_near(value_and_gradients(rule, inputs), expected, EXACT)


def test_decays_by_head_and_by_channel_are_added():
    inputs, by_channel = delta_inputs(), with_g_by_channel(delta_inputs())["g"]
    both = fused_recurrent_gated_delta_rule(**inputs, gk=by_channel)
    expected = by_definition(**inputs | {"g": inputs["g"].unsqueeze(3) + by_channel})
    torch.testing.assert_close(both, expected)


def test_without_decay_it_is_the_delta_rule_and_without_beta_it_is_one():
    inputs = delta_inputs()
    del inputs["g"]
    expected = by_definition(**inputs, g=None)
    torch.testing.assert_close(chunk_delta_rule(**inputs), expected)
    ones = inputs | {"beta": None}
    expected = by_definition(**inputs | {"beta": torch.ones_like(inputs["beta"])}, g=None)
    torch.testing.assert_close(chunk_gated_delta_rule(**ones), expected)


RULES = [
    chunk_gated_delta_rule,
    fused_recurrent_gated_delta_rule,
    chunk_kda,
    fused_recurrent_kda,
    chunk_delta_rule,
    fused_recurrent_delta_rule,
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_options_of_fla_that_are_not_here_may_be_given_while_they_ask_for_nothing(rule):
    q, beta = torch.rand(1, 3, 2, 4), torch.rand(1, 3, 2)
    decay = {"g": -torch.rand(q.shape if "kda" in rule.__name__ else beta.shape)}
    decay = {} if rule is chunk_delta_rule else decay
    expected, _ = rule(q, q, q, beta=beta, **decay)
    found, _ = rule(q, q, q, beta=beta, **decay, head_first=False, A_log=None)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    with pytest.raises(NotImplementedError, match="head_first: of fla's options"):
        rule(q, q, q, beta=beta, **decay, head_first=True)


@pytest.mark.parametrize("with_state", [False, True])
def test_packed_sequences_do_not_see_each_other(with_state):
    inputs = delta_inputs(batch=1, sequences=3)
    states = inputs["initial_state"] if with_state else torch.zeros_like(inputs["initial_state"])
    bounds = [0, 2, 3, LENGTH]
    given = inputs | {"initial_state": states if with_state else None}
    out, final = chunk_gated_delta_rule(**given, cu_seqlens=torch.tensor(bounds))
    for i in range(3):
        own = {n: inputs[n][:, bounds[i] : bounds[i + 1]] for n in ("q", "k", "v", "g", "beta")}
        expected = by_definition(**own, initial_state=states[i : i + 1])
        torch.testing.assert_close((out[:, bounds[i] : bounds[i + 1]], final[i : i + 1]), expected)


def test_types_and_what_is_not_asked_for():
    inputs = delta_inputs() | {"output_final_state": False}
    half = {n: x.bfloat16() if isinstance(x, Tensor) else x for n, x in inputs.items()}
    out, final = chunk_gated_delta_rule(**half)
    assert (out.dtype, final) == (torch.bfloat16, None)


@pytest.mark.parametrize("bounds", [[0, 5], [1, LENGTH], [0, 5, 3, LENGTH], [LENGTH]])
def test_bounds_that_do_not_fit_are_refused(bounds):
    inputs = delta_inputs(batch=1) | {"initial_state": None}
    with pytest.raises(ValueError, match="cu_seqlens must rise from 0 to 9"):
        chunk_gated_delta_rule(**inputs, cu_seqlens=torch.tensor(bounds))


@pytest.mark.parametrize("wrong", ["q", "k", "v", "g", "beta", "initial_state"])
def test_shapes_that_do_not_fit_are_refused(wrong):
    inputs = delta_inputs()
    inputs[wrong] = inputs[wrong][:, :1]
    with pytest.raises(ValueError, match=r"q, k must be \(batch, length, heads, key_width\)"):
        chunk_gated_delta_rule(**inputs)


def test_decays_of_values_and_numbers_that_are_not_real_are_refused():
    inputs = delta_inputs()
    with pytest.raises(NotImplementedError, match="gv"):
        fused_recurrent_gated_delta_rule(**inputs, gv=inputs["v"])
    with pytest.raises(TypeError, match="beta must be a tensor of real"):
        chunk_gated_delta_rule(**inputs | {"beta": inputs["beta"].long()})


# transformers' models

each_model = pytest.mark.parametrize("name", [*GATED_DELTA_MODELS, *KDA_MODELS])


def logits_and_gradients(model: nn.Module, prompt: Tensor) -> dict[str, Tensor]:
    out = model(prompt, labels=prompt)
    weights = dict(model.named_parameters())
    gradients = torch.autograd.grad(out.loss, list(weights.values()), materialize_grads=True)
    return {"logits": out.logits.detach(), **dict(zip(weights, gradients, strict=True))}


@each_model
@pytest.mark.filterwarnings("ignore")
def test_a_model_has_the_same_logits_and_gradients(name, called):
    model, prompt = delta_model(name), tokens(3, 21)
    expected = logits_and_gradients(model, prompt)
    assert called == []
    with use_in_transformers():
        actual = logits_and_gradients(model, prompt)
    both_ways = [f"{name}_{way}" for name in ("conv", "delta") for way in ("forward", "backward")]
    assert sorted(called) == sorted(compiled(*both_ways))
    assert_near(actual, expected, 2 * CHAINED)


@each_model
@pytest.mark.filterwarnings("ignore")
def test_a_model_writes_the_same(name, called):
    model, prompt = delta_model(name), tokens(3, 5)

    def generate() -> dict[str, Tensor]:
        wanted = {"max_new_tokens": 8, "do_sample": False}
        mask = torch.ones_like(prompt)
        out = model.generate(
            prompt, attention_mask=mask, **wanted, return_dict_in_generate=True, output_logits=True
        )
        return {"tokens": out.sequences, "logits": torch.stack(out.logits)}

    expected = generate()
    with use_in_transformers():
        actual = generate()
    assert called.count("recall_delta_forward") == len(compiled(*["delta_forward"] * 8))
    assert torch.equal(actual["tokens"], expected["tokens"])
    assert_near(actual, expected, 2 * CHAINED)
