"""transformers' Mamba models are the same on this package's kernels as without them."""

import pytest
import torch
from compat_checks import CHAINED, HALF, Results, assert_near, compiled
from torch import Tensor, nn
from transformers_models import language_model, tokens

from recall_arena.compat import use_in_transformers
from recall_arena.compat.in_transformers import MODELS

SCANS = {"mamba": 2, "falcon_mamba": 2, "jamba": 2, "zamba": 4}  # zamba scans head by head


def padded_on_the_left(prompt: Tensor) -> Tensor:
    mask = torch.ones_like(prompt)
    mask[0, : prompt.shape[1] // 2] = 0
    return mask


def logits_and_gradients(model: nn.Module, prompt: Tensor, mask: Tensor | None) -> Results:
    out = model(prompt, attention_mask=mask, labels=prompt)
    weights = dict(model.named_parameters())
    gradients = torch.autograd.grad(out.loss, list(weights.values()), materialize_grads=True)
    return {"logits": out.logits.detach(), **dict(zip(weights, gradients, strict=True))}


each_model = pytest.mark.parametrize("name", MODELS)
either_mask = pytest.mark.parametrize("masked", [False, True], ids=["whole", "masked"])


@either_mask
@pytest.mark.parametrize("training", [False, True], ids=["evaluated", "trained"])
@each_model
def test_a_model_has_the_same_logits_and_gradients(name, training, masked, called):
    model, prompt = language_model(name).train(training), tokens(3, 21)
    mask = padded_on_the_left(prompt) if masked else None
    expected = logits_and_gradients(model, prompt, mask)
    assert called == []
    with use_in_transformers():
        actual = logits_and_gradients(model, prompt, mask)
    scans = ["scan_forward", "scan_backward"] * SCANS[name]
    assert sorted(called) == sorted(compiled(*scans, *["conv_forward", "conv_backward"] * 2))
    assert_near(actual, expected, CHAINED)


@pytest.mark.parametrize(
    "options",
    [{"use_conv_bias": False}, {"use_bias": True}, {"conv_kernel": 9}, {"use_mambapy": True}],
    ids=str,
)
@either_mask
def test_a_mamba_of_another_form_has_the_same_logits_and_gradients(options, masked):
    model, prompt = language_model("mamba", **options), tokens(3, 21)
    mask = padded_on_the_left(prompt) if masked else None
    expected = logits_and_gradients(model, prompt, mask)
    with use_in_transformers():
        assert_near(logits_and_gradients(model, prompt, mask), expected, CHAINED)


@pytest.mark.parametrize("length", [1, 2, 11])
@each_model
def test_a_model_writes_the_same(name, length, called):
    model, prompt = language_model(name), tokens(3, length)

    def generate() -> Results:
        wanted = {
            "max_new_tokens": 12,
            "do_sample": False,
            "attention_mask": padded_on_the_left(prompt),
        }
        out = model.generate(prompt, **wanted, return_dict_in_generate=True, output_logits=True)
        return {"tokens": out.sequences, "logits": torch.stack(out.logits)}

    expected = generate()
    with use_in_transformers():
        actual = generate()
    prompt_and_tokens = ["scan_forward"] * SCANS[name] + ["conv_forward"] * 2 * 12
    assert sorted(called) == sorted(compiled(*prompt_and_tokens))
    assert torch.equal(actual["tokens"], expected["tokens"])
    assert_near(actual, expected, CHAINED)
    assert len(actual["tokens"].unique()) > 4


def test_generation_without_a_cache_writes_the_same():
    model, prompt = language_model("mamba"), tokens(2, 7)
    wanted = {"max_new_tokens": 8, "do_sample": False, "attention_mask": torch.ones_like(prompt)}
    with use_in_transformers():
        cached, uncached = (model.generate(prompt, **wanted, use_cache=c) for c in (True, False))
    assert torch.equal(cached, uncached)


def test_gradient_checkpointing_changes_nothing():
    model, prompt = language_model("mamba").train(), tokens(2, 9)
    with use_in_transformers():
        expected = logits_and_gradients(model, prompt, None)
        model.activation_checkpointing_enable()
        model(prompt, labels=prompt).loss.backward()
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter.grad, expected[name]), name


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-5), (torch.bfloat16, HALF)])
def test_other_types_of_numbers_stay_close(dtype, tolerance):
    model, prompt = language_model("mamba").to(dtype), tokens(2, 9)
    expected = model(prompt).logits
    with use_in_transformers():
        assert_near({"logits": model(prompt).logits}, {"logits": expected}, tolerance)
