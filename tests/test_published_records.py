"""Published records can be made again: a sample is, to the last bit on the same platform."""

from functools import cache

import pytest
from conftest import ROOT
from polars.testing import assert_frame_equal
from test_verification import verdict

from recall_arena.claims import SETTING
from recall_arena.frame import frame_of
from recall_arena.records import Record, Store
from recall_arena.runs import REVISION, from_json
from recall_arena.studies import STUDIES
from recall_arena.studies.assignment import rates
from recall_arena.studies.assignment.scales import PROBLEMS
from recall_arena.studies.assignment.settings import table_of
from recall_arena.studies.study import Plan
from recall_arena.verification import elsewhere, obstacle
from recall_arena.zoo import ZOO, name_of

pytestmark = pytest.mark.whole

PUBLISHED = Store(ROOT / "results" / "records")
AFFORDABLE = 150  # seconds of training, of a record of the sample


@cache
def affordable() -> list[Record]:
    """Those of this revision whose training takes no more than the affordable time."""
    return [
        record
        for record in PUBLISHED
        if obstacle(record) is None and record.cost.training_seconds < AFFORDABLE
    ]


def model_of(record: Record) -> str:
    model = record.run["model"]
    return name_of(model)


@pytest.mark.slow
@pytest.mark.parametrize("model", ZOO)
def test_a_published_record_is_made_again(model: str) -> None:
    """Of each model, the longest training, of a record of this platform if there is one."""
    found = [record for record in affordable() if model_of(record) == model]
    if not found:
        pytest.skip("no record of this revision is affordable")
    record = max(found, key=lambda one: (elsewhere(one) is None, one.outcome.steps, one.address))
    expected = "identical" if elsewhere(record) is None else "within rounding"
    assert verdict(record).kind == expected, verdict(record)


def test_records_of_this_revision_have_the_addresses_of_their_runs() -> None:
    """A new field or another way of writing one must not orphan what is published."""
    records = [record for record in PUBLISHED if record.run["revision"] == REVISION]
    assert len(records) > 100
    assert [from_json(one.run).address for one in records] == [one.address for one in records]


@pytest.mark.parametrize(
    "plan",
    [Plan("published", PROBLEMS), Plan("evidence", (1,)), Plan("mixed", PROBLEMS)],
    ids=lambda plan: plan.scale,
)
def test_the_chosen_rates_are_those_of_the_published_trials(plan: Plan) -> None:
    trials = PUBLISHED.read_all(
        named.run.address for named in STUDIES["rates"].runs(plan, PUBLISHED)
    )
    expected, kept = rates.trials_of(frame_of(trials)), rates.published(plan)
    kept = kept.join(table_of(plan.parts, alone=True), on=SETTING, how="semi")
    order = [*SETTING, "rate", "seed"]
    expected, kept = expected.sort(order), kept.sort(order)
    assert_frame_equal(kept, expected.select(kept.columns), check_dtypes=False)


def test_every_run_of_the_published_report_is_there() -> None:
    plan = Plan("published", PROBLEMS)
    runs = [named.run.address for named in STUDIES["assignment"].runs(plan, PUBLISHED)]
    assert len(PUBLISHED.read_all(runs)) == len(runs) == STUDIES["assignment"].size(plan)


def test_every_published_record_can_be_read() -> None:
    assert all(isinstance(one, Record) for one in PUBLISHED.scan())
