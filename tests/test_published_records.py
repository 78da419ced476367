"""Published records can be made again: of a sample, the outcome is the same to the last bit."""

from functools import cache

import pytest
import torch
from conftest import ROOT
from training_checks import finish

from recall_arena.kernels import native
from recall_arena.records import Record, Store
from recall_arena.runs import REVISION, from_json, provenance
from recall_arena.zoo import ZOO, name_of

PUBLISHED = Store(ROOT / "results" / "records")
AFFORDABLE = 150  # seconds of training, of a record of the sample


@cache
def comparable() -> list[Record]:
    """Those of this revision that were made with the same instruction set and libraries."""
    here = provenance()
    return [
        record
        for record in PUBLISHED
        if record.run["revision"] == REVISION
        and record.provenance.kernels == here.kernels
        and record.provenance.versions["torch"] == here.versions["torch"]
    ]


def model_of(record: Record) -> str:
    model = record.run["model"]
    return name_of(model)


@pytest.mark.slow
@pytest.mark.parametrize("model", ZOO)
def test_a_published_record_is_made_again_to_the_last_bit(model):
    """Of each model, the longest training that takes no more than the affordable time."""
    torch.set_num_threads(1)
    found = [
        record
        for record in comparable()
        if model_of(record) == model and record.cost.training_seconds < AFFORDABLE
    ]
    if not found:
        pytest.skip(f"no record of this revision was made with {native.describe()}")
    record = max(found, key=lambda record: (record.outcome.steps, record.address))
    _, made, _ = finish(from_json(record.run))
    assert made.address == record.address
    assert made.outcome == record.outcome


def test_records_of_this_revision_have_the_addresses_of_their_runs():
    """A new field or another way of writing one must not orphan what is published."""
    records = [record for record in PUBLISHED if record.run["revision"] == REVISION]
    assert len(records) > 100
    assert [from_json(one.run).address for one in records] == [one.address for one in records]
