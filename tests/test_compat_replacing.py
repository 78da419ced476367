"""`use_in_transformers` replaces what it says, for as long as it says, and puts everything back."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from compat_checks import CHAINED, assert_near, compiled
from transformers_models import language_model, modelling, replaced_in, tokens

from recall_arena.compat import use_in_transformers
from recall_arena.compat.in_transformers import MODELS


@pytest.fixture(autouse=True)
def everything_is_put_back() -> Iterator[None]:
    before = {name: replaced_in(name) for name in MODELS}
    yield
    assert {name: replaced_in(name) for name in MODELS} == before


def use_raises_an_error() -> None:
    with use_in_transformers():
        raise KeyError("of its own")


def test_an_exception_puts_everything_back():
    before = replaced_in("zamba")
    with pytest.raises(KeyError, match="of its own"):
        use_raises_an_error()
    assert replaced_in("zamba") == before


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1, 0, 2]])
def test_closing_in_any_order_puts_everything_back_at_last(order, called):
    before, model = replaced_in("mamba"), language_model("mamba")
    opened = [use_in_transformers() for _ in range(3)]
    for place in order:
        model(tokens(2, 9))
        assert called == compiled(*["conv_forward", "scan_forward"] * 2)
        called.clear()
        opened[place].close()
        opened[place].close()
    assert replaced_in("mamba") == before


def test_a_replacement_on_top_of_ours_stays_and_no_longer_reaches_us(monkeypatch, called):
    mamba, model = modelling("mamba"), language_model("mamba")
    with use_in_transformers():
        ours, seen = mamba.mamba_selective_scan, []

        def on_top(*arguments: Any, **options: Any) -> Any:
            seen.append(1)
            return ours(*arguments, **options)

        monkeypatch.setattr(mamba, "mamba_selective_scan", on_top)
    model(tokens(2, 9))
    assert (seen, called) == ([1, 1], [])
    monkeypatch.undo()
    mamba.mamba_selective_scan = ours.theirs


OUT_OF_REACH = ["mamba2", "bamba", "zamba2", "falcon_h1", "granitemoehybrid", "nemotron_h", "lfm2"]


@pytest.mark.parametrize("name", OUT_OF_REACH)
def test_models_out_of_reach_keep_their_functions_and_are_named(name):
    before = dict(vars(modelling(name)))
    with use_in_transformers():
        assert dict(vars(modelling(name))) == before
    assert name in (use_in_transformers.__doc__ or "")


@pytest.fixture
def theirs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The operations that ran as transformers has them, by name and in order."""
    names: list[str] = []

    def list_calls_of(name: str, function: Callable[..., Any]) -> None:
        def listed(*arguments: Any, **options: Any) -> Any:
            names.append(name)
            return function(*arguments, **options)

        monkeypatch.setattr(modelling("mamba"), name, listed)

    for name, function in replaced_in("mamba").items():
        list_calls_of(name, function)
    return names


def test_what_does_not_fit_goes_where_it_went_before(theirs, monkeypatch):
    prompt, model = tokens(2, 9), language_model("mamba")
    gelu = language_model("mamba", hidden_act="gelu")
    expected = gelu(prompt).logits
    theirs.clear()
    with use_in_transformers():
        model(prompt)
        assert theirs == []
        assert_near({"logits": gelu(prompt).logits}, {"logits": expected}, CHAINED)
        assert theirs == ["causal_conv1d_fn"] * 2

        theirs.clear()
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
        model(prompt)
        assert theirs == ["causal_conv1d_fn", "mamba_selective_scan"] * 2


def test_another_device_goes_where_it_went_before(theirs):
    model = language_model("mamba").to("meta").train()
    with use_in_transformers():
        model(tokens(2, 9).to("meta"))
    assert theirs == ["mamba_inner_fn", "causal_conv1d_fn", "mamba_selective_scan"] * 2


@pytest.mark.parametrize("name", MODELS)
def test_packed_sequences_are_not_let_through_unseen(name):
    """The convolution could keep them apart, and the scan after it would mix them."""
    x, B, A = torch.zeros(1, 4, 6), torch.zeros(1, 3, 6), torch.zeros(4, 3)
    packed = {"seq_idx": torch.zeros(1, 6, dtype=torch.int32)}
    with use_in_transformers():
        with pytest.raises(ValueError, match="packed sequences"):
            modelling(name).causal_conv1d_fn(x, A, activation="silu", **packed)
        with pytest.raises(ValueError, match="packed sequences"):
            modelling(name).mamba_selective_scan(x, x, A, B, B, delta_softplus=True, **packed)


def test_a_transformers_without_these_operations_is_refused(monkeypatch):
    monkeypatch.delattr(modelling("zamba"), "mamba_selective_scan")
    before = {name: replaced_in(name) for name in MODELS}
    with pytest.raises(ImportError, match="has no mamba_selective_scan for zamba"):
        use_in_transformers()
    assert {name: replaced_in(name) for name in MODELS} == before
    monkeypatch.undo()


def test_transformers_is_only_imported_by_the_call():
    program = "import sys, recall_arena.compat; sys.exit('transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
