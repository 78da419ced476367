"""The search of learning rates: at least four rates a setting, all tried, all recorded.

The rate is a confounder: a model that fails at one rate may solve the task at another
(arXiv:2508.19029).  Each setting gets the rate that did best in a search with a seed that no
reported run uses, judged on validation sequences of the training length alone.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from importlib.resources import files

from recall_arena.evaluation import Contexts
from recall_arena.records import Record, Store
from recall_arena.runs import Run
from recall_arena.studies.assignment.settings import CONTEXT, SETTINGS, Scale, Setting

RATES: dict[int, tuple[float, ...]] = {8: (1e-3, 3e-3, 1e-2, 3e-2), 64: (3e-4, 1e-3, 3e-3, 1e-2)}
"""The rates that are tried first at each width; wide models want smaller ones."""

LADDER = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
"""The rates into which a grid may grow, where its best one stands at its edge."""

SEED = 1000
FILE = files("recall_arena") / "studies" / "assignment" / "rates.json"


@dataclass(frozen=True)
class Trial:
    """One rate tried on one setting, and how it did on validation sequences of length L.

    revision  that of the code which ran the search
    """

    setting: str
    rate: float
    accuracy: float
    ended_by: str
    steps: int
    solved_at: int | None
    address: str
    revision: int

    @property
    def diverged(self) -> bool:
        """Whether it ended in a loss that is not finite; such a rate is never chosen."""
        return self.ended_by == "diverged"


def search_run(setting: Setting, rate: float, scale: Scale) -> Run:
    """The run that tries a rate; it is tested at the training length only."""
    contexts = Contexts(first=CONTEXT, last=CONTEXT)
    return setting.run(rate, scale.search_steps[setting.problem], SEED, contexts)


def grid(setting: Setting, scale: Scale, store: Store) -> tuple[float, ...]:
    """The rates to try: those of the width, and beyond an edge as long as the best stands there."""
    rates = RATES[setting.width]
    while True:
        found = setting_trials(setting, rates, scale, store)
        if len(found) < len(rates) or not any(not trial.diverged for trial in found):
            return rates
        chosen = best(found).rate
        below = max((rate for rate in LADDER if rate < rates[0]), default=None)
        above = min((rate for rate in LADDER if rate > rates[-1]), default=None)
        if chosen == rates[0] and below is not None:
            rates = (below, *rates)
        elif chosen == rates[-1] and above is not None:
            rates = (*rates, above)
        else:
            return rates


def search_runs(scale: Scale, problems: Iterable[int], store: Store) -> list[Run]:
    """Every rate on every setting of the problems, the longest runs first.

    Once those of a setting are in the store, the list may grow beyond an edge of its grid.
    """
    chosen = [setting for setting in SETTINGS if setting.problem in problems]
    chosen.sort(key=lambda setting: (-setting.width, -setting.problem))
    return [search_run(s, rate, scale) for s in chosen for rate in grid(s, scale, store)]


def setting_trials(
    setting: Setting, rates: Iterable[float], scale: Scale, store: Store
) -> list[Trial]:
    """What the search found for these rates, as far as the store has it."""
    addresses = {rate: search_run(setting, rate, scale).address for rate in rates}
    return [
        trial(setting, rate, store.read(address))
        for rate, address in addresses.items()
        if address in store
    ]


def trials(scale: Scale, store: Store) -> list[Trial]:
    """What the search found for all settings, as far as the store has it."""
    return [
        trial
        for setting in SETTINGS
        for trial in setting_trials(setting, grid(setting, scale, store), scale, store)
    ]


def trial(setting: Setting, rate: float, record: Record) -> Trial:
    """What a record says about a rate."""
    outcome = record.outcome
    checks = outcome.checks.accuracy()
    return Trial(
        setting=setting.key,
        rate=rate,
        accuracy=checks[-1] if checks else 0.0,
        ended_by=outcome.ended_by,
        steps=outcome.steps,
        solved_at=outcome.solved_at,
        address=record.address,
        revision=record.run["revision"],
    )


def best(tried: Iterable[Trial]) -> Trial:
    """The trial that was solved in the fewest steps; if none was, the most accurate one.

    A trial that diverged cannot be chosen.  Raises ValueError if all of them did.
    """
    return min(
        (trial for trial in tried if not trial.diverged),
        key=lambda t: (t.solved_at is None, t.solved_at or 0, -t.accuracy, t.rate),
    )


def write(found: list[Trial]) -> str:
    """The text of `rates.json` for these trials."""
    return "[\n" + ",\n".join(json.dumps(asdict(trial)) for trial in found) + "\n]\n"


def published() -> list[Trial]:
    """The search whose choice the studies use, as it is kept beside this file."""
    return [Trial(**row) for row in json.loads(FILE.read_text())]


def chosen_rates() -> dict[str, float]:
    """The learning rate of each setting, by its key."""
    by_setting: dict[str, list[Trial]] = {}
    for trial in published():
        by_setting.setdefault(trial.setting, []).append(trial)
    return {setting: best(tried).rate for setting, tried in by_setting.items()}
