"""The script that runs upstream's tests on compat, on a checkout of three tests."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.whole

SCRIPT = Path(__file__).parent.parent / "scripts" / "upstream_tests.py"

INTERFACE = """
import not_there_without_a_gpu
import torch
from torch.nn import functional as F


def causal_conv1d_fn(x, weight):
    return not_there_without_a_gpu.convolve(x, weight)


def causal_conv1d_ref(x, weight):
    return F.conv1d(x, weight[:, None], padding=1, groups=3)[..., :-1]
"""
TESTS = """
import pytest
import torch
from causal_conv1d.causal_conv1d_interface import causal_conv1d_fn, causal_conv1d_ref


@pytest.mark.parametrize("size", [1.0, 2.0])
def test_equal(size):
    device = 'cuda'
    x, weight = size * torch.ones(2, 3, 4, device=device), torch.ones(3, 2, device=device)
    assert torch.equal(causal_conv1d_fn(x, weight), size * causal_conv1d_ref(x, weight))


def test_gelu():
    causal_conv1d_fn(torch.ones(2, 3, 4), torch.ones(3, 2), activation="gelu")


def test_many():
    assert len(range(10000)) == 10
    pytest.skip("CUDA required")
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name, text in [
        ("causal_conv1d/causal_conv1d_interface.py", INTERFACE),
        ("tests/test_causal_conv1d.py", TESTS),
    ]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def run_script(*words: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, SCRIPT, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env={"COLUMNS": "120"})


def test_outcomes_are_counted_by_test_and_by_reason(checkout):
    done = run_script(checkout)
    assert done.returncode == 1, done.stderr
    rows = [line.replace("│", "").split() for line in done.stdout.splitlines()]
    assert ["test_equal", "1", "1", "0", "0"] in rows
    assert ["test_gelu", "0", "0", "1", "0"] in rows
    assert ["test_many", "0", "0", "0", "1"] in rows
    assert ["together", "1", "1", "1", "1"] in rows
    assert "assert torch.equal(causal_conv1d_fn(x, weight), size * causal" in done.stdout
    assert "activation must be None, silu or swish; got 'gelu'" in done.stdout
    assert "CUDA required" in done.stdout


@pytest.mark.slow
def test_a_draw_of_tests_is_the_same_every_time(checkout):
    first, second = (run_script(checkout, "--sample", 1, "--select", "equal") for _ in range(2))
    assert first.stdout.split("tests to draw")[1] == second.stdout.split("tests to draw")[1]
    assert "2 tests to draw from" in first.stdout


def test_a_path_that_is_no_such_checkout_is_said_to_be_none(tmp_path):
    done = run_script(tmp_path)
    assert done.returncode == 2
    assert "is no working tree of state-spaces/mamba or Dao-AILab/causal-conv1d" in done.stdout
