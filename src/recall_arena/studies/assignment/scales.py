"""The assignment's scales: how many iterations, seeds and rates its settings get."""

from dataclasses import dataclass, field

CONTEXT = 64
PROBLEMS = (1, 2, 3)


@dataclass(frozen=True)
class Effort:
    """What is spent on a setting: iterations at most, and runs with seeds from `first_seed` on.

    The rate falls to zero over the last `decay_steps` iterations, or over their last fifth.
    """

    steps: int
    seeds: int = 1
    first_seed: int = 0
    decay_steps: int | None = None

    @property
    def decay(self) -> float:
        """The share of the budget over which the rate falls."""
        return 0.2 if self.decay_steps is None else self.decay_steps / self.steps

    def of(self, seeds: int | None) -> range:
        """The seeds: so many, or as many as it says."""
        return range(self.first_seed, self.first_seed + (seeds or self.seeds))


Efforts = dict[int | tuple[int, str], Effort]
"""By problem; or by problem and model, which then counts for that model."""


def effort_of(problem: int, model: str, efforts: Efforts) -> Effort:
    """What is spent on each setting of a problem with this model."""
    return efforts.get((problem, model), efforts[problem])


Rates = dict[int, tuple[float, ...]]

FOUR_RATES: Rates = {8: (1e-3, 3e-3, 1e-2, 3e-2), 64: (3e-4, 1e-3, 3e-3, 1e-2)}
THREE_RATES: Rates = {width: rates[:3] for width, rates in FOUR_RATES.items()}
"""Without the largest, at which next to no setting learns."""


@dataclass(frozen=True)
class Scale:
    """How much is spent on runs and on their search, and the lengths tested (from `first` on).

    `rates` are those that the search tries first at each width; wide models want smaller ones.
    """

    about: str
    runs: Efforts
    search: Efforts
    first: int | None = None
    stride: int = 1
    rates: Rates = field(default_factory=lambda: FOUR_RATES)


def _equal(steps: tuple[int, int, int], seeds: int = 1, first_seed: int = 0) -> Efforts:
    return {
        part: Effort(budget, seeds, first_seed)
        for part, budget in zip(PROBLEMS, steps, strict=True)
    }


SEARCHED = 1000
"""The first seed of the search, with those after it; no reported run has one."""

JUDGED = 100
"""The first seed of the runs that judge claims; those before it are for finding hypotheses."""

LATE = 2_000
"""Iterations of decay after a constant rate, so that no budget moves what comes before it."""

SHORT_SEARCH = _equal((12_000, 30_000, 6_000), first_seed=SEARCHED)
SCALES = {
    "smoke": Scale(
        "half a minute on two cores: every part runs, nothing is learnt",
        runs=_equal((40, 40, 5)),
        search=_equal((20, 20, 5), first_seed=SEARCHED),
        first=CONTEXT // 2,
        stride=CONTEXT // 2,
    ),
    "quick": Scale(
        "10 to 20 minutes on two cores: one seed",
        runs=_equal((30_000, 30_000, 10_000)),
        search=SHORT_SEARCH,
    ),
    "published": Scale(
        "about six hours on two cores: what results/ shows, three seeds",
        runs=_equal((30_000, 100_000, 30_000), seeds=3),
        search=SHORT_SEARCH,
    ),
    "full": Scale(
        "hours on two cores: five seeds, budgets that outlast the plateau",
        runs=_equal((60_000, 100_000, 30_000), seeds=5),
        search=_equal((60_000, 100_000, 30_000), first_seed=SEARCHED),
    ),
    "evidence": Scale(
        "days on two cores: the seeds that judge the claims, 20 where they are affordable",
        runs={
            1: Effort(100_000 + LATE, 20, JUDGED, LATE),
            (1, "transformer-learned"): Effort(100_000 + LATE, 10, JUDGED, LATE),
            (1, "transformer-nope"): Effort(100_000 + LATE, 10, JUDGED, LATE),
            2: Effort(100_000 + LATE, 20, JUDGED, LATE),
            3: Effort(60_000 + LATE, 10, JUDGED, LATE),
        },
        search={
            1: Effort(10_000, 3, SEARCHED, 0),
            2: Effort(30_000, 3, SEARCHED, 0),
            3: Effort(15_000, 3, SEARCHED, 0),
        },
        rates=THREE_RATES,
    ),
}
