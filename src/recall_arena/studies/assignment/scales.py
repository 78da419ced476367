"""The assignment's scales: how many iterations, seeds and rates its settings get."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

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
    beside         the scale whose runs belong to it too, set beside its own
    """

    about: str
    problems: Mapping[int, Efforts]
    first: int | None = None
    stride: int = 1
    mixed: bool = False
    beside: str | None = None


SEARCHED = 1000
"""The first seed of the search, with those after it; no reported run has one."""

JUDGED = 100
"""The first seed of the runs that judge claims; those before it are for finding hypotheses."""

LATE = 2_000
"""Iterations of decay after a constant rate, so that no budget moves what comes before it."""

SLOW = ("transformer-learned", "transformer-nope")
"""The models that learn the induction head late or never, at many times the cost of the others."""

RARE = {"transformer-learned": 50, "transformer-nope": 3, "transformer-rope": 40}
"""Seeds at lengths up to L: more of those of which few keep what they learn, until enough do."""

CLIMBING = ("transformer-rope", "mamba")
"""Those that use up their budget on many queries, of which the hybrids learn all early."""


def _judged(
    steps: int, seeds: int, searched: int, fewer: Mapping[str, int] | None = None
) -> Efforts:
    """At a constant rate of three tried with three seeds; `fewer` seeds for some models."""
    runs = Effort(steps + LATE, seeds, JUDGED, LATE)
    search = Effort(searched, 3, SEARCHED, 0)
    apart = {model: replace(runs, seeds=few) for model, few in (fewer or {}).items()}
    return Efforts(runs, search, THREE_RATES, apart)


def _begun(efforts: Efforts, steps: int) -> Efforts:
    """The first seed alone, and so many iterations: the rate is constant up to there."""
    runs = replace(efforts.runs, steps=steps, seeds=1, decay_steps=0)
    return replace(efforts, runs=runs, apart={})


EVIDENCE = {
    1: _judged(100_000, 20, searched=10_000, fewer=dict.fromkeys(SLOW, 10)),
    2: _judged(100_000, 20, searched=30_000),
    3: _judged(60_000, 10, searched=15_000),
}
PUBLISHED = {
    1: _judged(100_000, 20, searched=10_000, fewer=dict.fromkeys(SLOW, 3)),
    2: Efforts(Effort(100_000, seeds=3), Effort(30_000, first_seed=SEARCHED)),
    3: Efforts(Effort(30_000, seeds=3), Effort(6_000, first_seed=SEARCHED)),
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
        "about ten minutes on two cores: the first published seed of every setting, as far as it "
        "gets",
        {
            problem: _begun(PUBLISHED[problem], steps)
            for problem, steps in ((1, 6_000), (2, 7_000), (3, 1_900))
        },
        first=12,
        stride=4,
    ),
    "published": Scale(
        "about 15 hours on two cores: what results/ shows, Problem 1 with up to twenty seeds, "
        "the others with three, and those of `mixed` beside them",
        PUBLISHED,
        beside="mixed",
    ),
    "evidence": Scale(
        "days on two cores: the seeds that judge the claims, 20 where they are affordable",
        EVIDENCE,
    ),
    "mixed": Scale(
        "about seven hours on two cores: each step's length drawn from those up to L",
        {
            1: _judged(40_000, 20, searched=6_000, fewer=RARE),
            2: _judged(40_000, 20, searched=10_000, fewer=dict.fromkeys(CLIMBING, 10)),
            3: _judged(30_000, 6, searched=6_000),
        },
        mixed=True,
    ),
}
