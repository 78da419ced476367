"""The assignment's scales: how many iterations, seeds and rates its settings get."""

from collections.abc import Mapping
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


Rates = dict[int, tuple[float, ...]]

FOUR_RATES: Rates = {8: (1e-3, 3e-3, 1e-2, 3e-2), 64: (3e-4, 1e-3, 3e-3, 1e-2)}
THREE_RATES: Rates = {width: rates[:3] for width, rates in FOUR_RATES.items()}
"""Without the largest, at which next to no setting learns."""


@dataclass(frozen=True)
class Efforts:
    """What is spent on each setting of a problem.

    runs     on its runs; `apart` names the models on which it is something else
    search   on each rate of its search
    rates    those that the search tries first at each width; wide models want smaller ones
    """

    runs: Effort
    search: Effort
    rates: Rates = field(default_factory=lambda: FOUR_RATES)
    apart: Mapping[str, Effort] = field(default_factory=dict)

    def runs_of(self, model: str) -> Effort:
        """What is spent on the runs of this model."""
        return self.apart.get(model, self.runs)


@dataclass(frozen=True)
class Scale:
    """How much is spent on each problem, and which lengths are trained and tested.

    first, stride  of the lengths tested
    mixed          each step's length is drawn from the shortest with an answer, tau + 1, to L: "up
                   to context length L" read as any length up to L; else it is L, as step 1 of the
                   recipe says
    """

    about: str
    problems: Mapping[int, Efforts]
    first: int | None = None
    stride: int = 1
    mixed: bool = False


SEARCHED = 1000
"""The first seed of the search, with those after it; no reported run has one."""

JUDGED = 100
"""The first seed of the runs that judge claims; those before it are for finding hypotheses."""

LATE = 2_000
"""Iterations of decay after a constant rate, so that no budget moves what comes before it."""

SHORT_SEARCH = {
    problem: Effort(steps, first_seed=SEARCHED)
    for problem, steps in zip(PROBLEMS, (12_000, 30_000, 6_000), strict=True)
}
SLOW = ("transformer-learned", "transformer-nope")
"""The models that learn the induction head late or never, at many times the cost of the others."""


def _judged(
    steps: int,
    seeds: int,
    searched: int,
    slow_seeds: int | None = None,
    slow: tuple[str, ...] = SLOW,
) -> Efforts:
    """At a constant rate of three tried with three seeds; the models that are `slow` get fewer."""
    runs = Effort(steps + LATE, seeds, JUDGED, LATE)
    fewer = Effort(steps + LATE, slow_seeds or seeds, JUDGED, LATE)
    search = Effort(searched, 3, SEARCHED, 0)
    return Efforts(runs, search, THREE_RATES, dict.fromkeys(slow, fewer))


def _short(steps: tuple[int, int, int], seeds: int = 1) -> dict[int, Efforts]:
    """Runs whose rates are of the short search."""
    return {
        problem: Efforts(Effort(budget, seeds), SHORT_SEARCH[problem])
        for problem, budget in zip(PROBLEMS, steps, strict=True)
    }


EVIDENCE = {
    1: _judged(100_000, 20, searched=10_000, slow_seeds=10),
    2: _judged(100_000, 20, searched=30_000),
    3: _judged(60_000, 10, searched=15_000),
}
SCALES = {
    "smoke": Scale(
        "half a minute on two cores: every part runs, nothing is learnt",
        {
            problem: Efforts(Effort(steps), Effort(searched, first_seed=SEARCHED))
            for problem, steps, searched in ((1, 40, 20), (2, 40, 20), (3, 5, 5))
        },
        first=CONTEXT // 2,
        stride=CONTEXT // 2,
    ),
    "quick": Scale(
        "10 to 20 minutes on two cores: one seed",
        _short((30_000, 30_000, 10_000)),
    ),
    "published": Scale(
        "about nine hours on two cores: what results/ shows, Problem 1 with up to twenty seeds, "
        "the others with three",
        _short((30_000, 100_000, 30_000), seeds=3)
        | {1: _judged(100_000, 20, searched=10_000, slow_seeds=3)},
    ),
    "evidence": Scale(
        "days on two cores: the seeds that judge the claims, 20 where they are affordable",
        EVIDENCE,
    ),
    "mixed": Scale(
        "about nine hours on two cores: each step's length drawn from those up to L, with the "
        "seeds that judge the claims",
        {
            1: _judged(40_000, 20, searched=6_000, slow_seeds=5),
            2: _judged(
                40_000, 20, searched=10_000, slow_seeds=10, slow=("transformer-rope", "mamba")
            ),
            3: _judged(40_000, 5, searched=6_000),
        },
        mixed=True,
    ),
}
