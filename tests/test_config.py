"""What describes a run is of the types that it says, and equal descriptions are written alike."""

import copy
import dataclasses
import json
import math
import pickle
from typing import Annotated, Literal

import numpy as np
import pytest
import tyro
from pydantic import AllowInfNan

from recall_arena.config import added, as_json, frozen, read


@frozen
class Plan:
    """What every kind of field is tried on."""

    rate: float
    steps: int = 10
    last: int | None = None
    layers: tuple[str, ...] = ("mamba",)
    norm: Literal["layer", "rms"] = "layer"
    bias: bool = False
    clip: Annotated[float, AllowInfNan()] = 1.0

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, got {self.steps}")


@frozen
class Whole:
    """A description within another."""

    plan: Plan
    seed: int = 0


def written(plan: Plan) -> str:
    return json.dumps(dataclasses.asdict(plan))


@pytest.mark.parametrize(
    ("given", "plain"),
    [
        ({"rate": 1}, {"rate": 1.0}),
        ({"rate": np.float64(0.5)}, {"rate": 0.5}),
        ({"rate": np.float32(0.5), "steps": np.int64(7)}, {"rate": 0.5, "steps": 7}),
        ({"rate": 1.0, "last": np.uint8(255)}, {"rate": 1.0, "last": 255}),
        ({"rate": 1.0, "layers": ["mamba", np.str_("a")]}, {"rate": 1.0, "layers": ("mamba", "a")}),
        ({"rate": 1.0, "bias": np.bool_(True)}, {"rate": 1.0, "bias": True}),
        ({"rate": 1.0, "clip": np.float32("inf")}, {"rate": 1.0, "clip": math.inf}),
    ],
)
def test_equal_descriptions_are_written_alike(given, plain):
    assert Plan(**given) == Plan(**plain)
    assert hash(Plan(**given)) == hash(Plan(**plain))
    assert written(Plan(**given)) == written(Plan(**plain))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"steps": 1e3}, "steps: should be a valid integer, got 1000.0"),
        ({"steps": np.float64(3)}, "steps: should be a valid integer, got 3.0"),
        ({"steps": True}, "steps: should be a valid integer, got True"),
        ({"steps": np.bool_(True)}, "steps: should be a valid integer, got True"),
        ({"steps": "7"}, "steps: should be a valid integer, got '7'"),
        ({"steps": None}, "steps: should be a valid integer, got None"),
        ({"rate": True}, "rate: should be a valid number, got True"),
        ({"rate": "0.1"}, "rate: should be a valid number, got '0.1'"),
        ({"rate": math.nan}, "rate: should be a finite number, got nan"),
        ({"rate": np.float32("inf")}, "rate: should be a finite number, got inf"),
        ({"layers": "mamba"}, "layers: should be a valid tuple, got 'mamba'"),
        ({"layers": ("mamba", 1)}, "layers.1: should be a valid string, got 1"),
        ({"norm": "batch"}, "norm: should be 'layer' or 'rms', got 'batch'"),
        ({"bias": 1}, "bias: should be a valid boolean, got 1"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"steps": True, "bias": 0}, "steps: .*, got True; bias: .*, got 0"),
    ],
)
def test_a_value_of_another_kind_is_refused_in_one_line(given, message):
    fields = {"rate": 0.1, **given}
    with pytest.raises(ValueError, match=f"^{message}$"):
        Plan(**fields)
    with pytest.raises(ValueError, match=f"^{message}$"):
        Plan(*(fields.get(field.name, field.default) for field in dataclasses.fields(Plan)))
    with pytest.raises(ValueError, match=f"^{message}$"):
        dataclasses.replace(Plan(0.1), **given)


def test_a_call_with_other_fields_is_the_type_error_of_any_dataclass():
    with pytest.raises(TypeError, match="unexpected keyword argument 'stepz'"):
        Plan(0.1, stepz=3)
    with pytest.raises(TypeError, match="missing a required argument: 'rate'"):
        Plan()


def test_it_is_a_frozen_dataclass_like_any_other():
    whole = Whole(Plan(0.1), seed=3)
    assert pickle.loads(pickle.dumps(whole)) == whole
    assert copy.deepcopy(whole) == whole
    assert dataclasses.replace(whole, seed=4) == Whole(Plan(0.1), 4)
    assert len({whole, Whole(Plan(0.1), 3), Whole(Plan(0.1), 4)}) == 2
    assert repr(Whole(Plan(0.1, norm="rms"))).startswith("Whole(plan=Plan(rate=0.1, steps=10,")
    with pytest.raises(dataclasses.FrozenInstanceError):
        whole.seed = 4


def test_another_kind_of_description_is_refused():
    with pytest.raises(ValueError, match="plan: should be an instance of Plan"):
        Whole(Whole(Plan(0.1)))


def test_what_was_written_as_json_is_read():
    whole = Whole(Plan(0.1, last=5, layers=("mamba", "attention")), seed=3)
    assert read(Whole, json.loads(json.dumps(dataclasses.asdict(whole)))) == whole


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"plan": {"rate": 0.1, "steps": 1e3}}, r"plan\.steps: should be a valid integer"),
        ({"plan": {"rate": 0.1, "steps": True}}, r"plan\.steps: should be a valid integer"),
        ({"plan": {"rate": math.inf}}, r"plan\.rate: should be a finite number, got inf"),
        ({"plan": {"rate": 0.1, "layers": "mamba"}}, r"plan\.layers: should be a valid array"),
        ({"plan": {"rate": 0.1, "steps": 0}}, "steps must be at least 1, got 0"),
        ({"plan": {"rate": 0.1, "stepz": 1}}, r"plan\.stepz: unexpected keyword argument, got 1"),
        ({"plan": {}}, r"^plan\.rate: field required$"),
    ],
)
def test_json_that_describes_no_run_is_refused_in_one_line(values, message):
    with pytest.raises(ValueError, match=message) as error:
        read(Whole, values)
    assert "\n" not in str(error.value)


def test_the_command_line_reads_its_flags(capsys):
    flags = ["--plan.rate", "1", "--plan.layers", "mamba", "attention", "--seed", "3"]
    assert tyro.cli(Whole, args=flags) == Whole(Plan(1.0, layers=("mamba", "attention")), 3)

    with pytest.raises(SystemExit, match="2"):
        tyro.cli(Whole, args=["--plan.rate", "nan"])
    assert "rate: should be a finite number, got nan" in capsys.readouterr().err


# Fields that come later


def test_a_field_added_later_is_written_only_where_it_differs():
    """So descriptions from before it, and the addresses made of them, stay what they were."""

    @frozen
    class Grown:
        plan: Plan
        seed: int = 0
        decay: float = added(default=0.5)

    before = {"plan": as_json(Plan(1.0)), "seed": 3}
    assert as_json(Grown(Plan(1.0), 3)) == before
    assert read(Grown, before) == Grown(Plan(1.0), 3, 0.5)
    assert as_json(Grown(Plan(1.0), 3, 0.25)) == {**before, "decay": 0.25}
    assert read(Grown, as_json(Grown(Plan(1.0), 3, 0.25))).decay == 0.25


def test_what_is_written_is_what_json_brings_back():
    plan = Plan(0.5, layers=("a", "b"), last=3)
    assert as_json(plan) == json.loads(json.dumps(dataclasses.asdict(plan)))
