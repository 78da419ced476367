"""The assignment's experiments: which model meets which task, and at what scale.

Problem 1   six models, the induction head (M = 1), tau = 1 and tau = 5
Problem 2   Mamba, the RoPE transformer and both hybrids, M = 4, 8, 16
Problem 3   Mamba eight times as wide, M = 4, 8, 16, and M = 16 with tau = 10
"""

from dataclasses import dataclass

from recall_arena.evaluation import Contexts
from recall_arena.model import named
from recall_arena.runs import Run
from recall_arena.tasks import AssociativeRecall
from recall_arena.training import Schedule
from recall_arena.zoo import ZOO

VOCABULARY = 16
CONTEXT = 64
LONGEST = 3 * CONTEXT
PROBLEMS = (1, 2, 3)


@dataclass(frozen=True)
class Setting:
    """A model on a task: one curve of a figure.  A learning rate and a seed make it a run.

    queries, delay and width are the assignment's M, tau and d.
    """

    problem: int
    model: str
    queries: int
    delay: int
    width: int

    @property
    def key(self) -> str:
        """The setting in a line, such as "mamba d=8 M=4 tau=1"."""
        return f"{self.model} d={self.width} M={self.queries} tau={self.delay}"

    def run(self, rate: float, steps: int, seed: int, contexts: Contexts) -> Run:
        """The run of this setting with a learning rate, a budget and a seed."""
        return Run(
            task=AssociativeRecall(VOCABULARY, self.queries, self.delay),
            model=named(
                self.model, vocabulary=VOCABULARY, width=self.width, longest_context=LONGEST
            ),
            schedule=Schedule(rate=rate, steps=steps, context=CONTEXT),
            contexts=contexts,
            seed=seed,
        )


SETTINGS = (
    *(Setting(1, model, queries=1, delay=delay, width=8) for delay in (1, 5) for model in ZOO),
    *(
        Setting(2, model, queries, delay=1, width=8)
        for queries in (4, 8, 16)
        for model in ("transformer-rope", "mamba", "hybrid-a", "hybrid-b")
    ),
    *(Setting(3, "mamba", queries, delay=1, width=64) for queries in (4, 8, 16)),
    Setting(3, "mamba", queries=16, delay=10, width=64),
)


@dataclass(frozen=True)
class Scale:
    """How much is spent: seeds, the step budget of each problem's runs, the lengths tested."""

    name: str
    seeds: int
    steps: dict[int, int]
    search_steps: dict[int, int]
    contexts: Contexts
    about: str


SCALES = {
    scale.name: scale
    for scale in (
        Scale(
            name="smoke",
            seeds=1,
            steps={1: 200, 2: 200, 3: 30},
            search_steps={1: 50, 2: 50, 3: 10},
            contexts=Contexts(first=CONTEXT // 2, last=LONGEST, stride=CONTEXT // 2),
            about="about a minute on two cores: every part runs, nothing is learnt",
        ),
        Scale(
            name="quick",
            seeds=1,
            steps={1: 30_000, 2: 30_000, 3: 10_000},
            search_steps={1: 12_000, 2: 30_000, 3: 6_000},
            contexts=Contexts(last=LONGEST),
            about="10 to 20 minutes on two cores: one seed",
        ),
        Scale(
            name="published",
            seeds=3,
            steps={1: 30_000, 2: 100_000, 3: 30_000},
            search_steps={1: 12_000, 2: 30_000, 3: 6_000},
            contexts=Contexts(last=LONGEST),
            about="an hour and a half on two cores: what results/ shows, three seeds",
        ),
        Scale(
            name="full",
            seeds=5,
            steps={1: 60_000, 2: 100_000, 3: 30_000},
            search_steps={1: 60_000, 2: 100_000, 3: 30_000},
            contexts=Contexts(last=LONGEST),
            about="hours on two cores: five seeds, budgets that outlast the plateau",
        ),
    )
}
