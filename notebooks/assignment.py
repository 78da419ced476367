# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Attention against Mamba on associative recall
#
# A sequence ends with a query token that appeared once before; the model must name the token that
# stood $\tau$ positions after that first appearance. $M$ tokens may be asked for; $M = 1$ is the
# induction head. Models are trained on sequences with $L = 64$ tokens before the query and
# tested at every length from $\tau + 1$ to $3L = 192$.
#
# Each run is a value (task, model, schedule, seed). Its record is looked up in `STORE`; what is
# missing is trained. The environment variables `RECALL_SCALE` (smoke, quick, full) and
# `RECALL_STORE` (a folder) choose how much is spent and where the records are.

# %%
# %matplotlib inline
import os
from pathlib import Path

import torch
from IPython.display import Markdown, display

from recall_arena import figures
from recall_arena.executors import Failed, cores, execute_all
from recall_arena.model import SequenceModel, named, unit_embedding
from recall_arena.records import Record, Store
from recall_arena.runs import Run
from recall_arena.studies import STUDIES, Plan
from recall_arena.studies.assignment.rates import chosen_rates
from recall_arena.studies.assignment.settings import SCALES
from recall_arena.tasks import AssociativeRecall
from recall_arena.training import Schedule
from recall_arena.zoo import ZOO

SCALE = SCALES[os.environ.get("RECALL_SCALE", "quick")]
STORE = Store(Path(os.environ.get("RECALL_STORE", "../results/records")))
SEEDS = range(SCALE.seeds)
VOCABULARY, L, CHANCE = 16, 64, 1 / 16
RATES = chosen_rates()  # searched beforehand: four rates a model and task

# %% [markdown]
# ## The task and the models
#
# The last column of `tokens` is the query. The embedding is random, of unit length, and frozen.

# %%
batch = AssociativeRecall(vocabulary=VOCABULARY, queries=4, delay=1).sample(
    2, 12, torch.Generator().manual_seed(0)
)
print("tokens ", *batch.tokens.tolist(), sep="\n")
print("answers", batch.answers.tolist())
print("norms of the embedding's rows:", unit_embedding(VOCABULARY, 8).norm(dim=1).unique())


# %%
def model(name: str, width: int):
    """One of the assignment's models; learned positions have rows up to 3L."""
    return named(name, vocabulary=VOCABULARY, width=width, longest_context=3 * L)


for name in ZOO:
    parameters = SequenceModel(model(name, 8)).trained_parameters()
    print(f"{name:<20} {' + '.join(ZOO[name].layers):<30} {parameters:>6,} trained parameters")


# %% [markdown]
# ## How a setting is trained and tested
#
# Batches of 64 fresh sequences, AdamW without weight decay, the loss on the last position only, the
# rate that the search chose. Every 100 iterations the accuracy on one held-out batch is taken; five
# checks in a row of at least 99.9 % end a run.


# %%
def runs(problem: int, name: str, queries: int, delay: int = 1, width: int = 8) -> list[Run]:
    """The runs of one setting, one for each seed."""
    rate = RATES[f"{name} d={width} M={queries} tau={delay}"]
    return [
        Run(
            task=AssociativeRecall(vocabulary=VOCABULARY, queries=queries, delay=delay),
            model=model(name, width),
            schedule=Schedule(rate=rate, steps=SCALE.steps[problem], context=L, batch=64),
            contexts=SCALE.contexts,
            seed=seed,
        )
        for seed in SEEDS
    ]


def finish(settings: dict[str, list[Run]]) -> dict[str, list[Record]]:
    """Train what the store lacks; the records of each setting."""
    wanted = [run for group in settings.values() for run in group]
    for event in execute_all(wanted, STORE, jobs=cores()):
        if isinstance(event, Failed):
            raise RuntimeError(event.reason)
    return {name: [STORE.read(run.address) for run in group] for name, group in settings.items()}


def lines(records: dict[str, list[Record]], *, training: bool) -> list[figures.Series]:
    """One curve a model: over training, or over context lengths."""
    return [
        figures.Series(
            name,
            tuple(r.outcome.checks if training else r.outcome.contexts for r in group),
        )
        for name, group in records.items()
    ]


def plot(panels: dict[str, dict[str, list[Record]]], *, training: bool = False) -> None:
    """A panel a title: accuracy against iterations or against context length."""
    figure, axes = figures.new_figure(len(panels), height=3.4)
    for axis, (title, records) in zip(axes, panels.items(), strict=True):
        if training:
            figures.convergence(axis, lines(records, training=True), chance=CHANCE)
        else:
            figures.accuracy_by_context(
                axis, lines(records, training=False), trained=L, chance=CHANCE
            )
        axis.set_title(title)
    figures.share_legend(figure, axes)
    display(figure)


def findings(problem: int) -> None:
    """What the records say to each "comment on" of a problem."""
    plan = Plan(SCALE.name, (problem,), len(SEEDS))
    for section in STUDIES["assignment"].sections(plan, STORE):
        for finding in section.findings:
            display(
                Markdown(
                    f"**{finding.question}** *{finding.verdict.capitalize()}.* {finding.comment} "
                    f"(Hypothesis: {finding.hypothesis} Measured: {finding.statistic}.)"
                )
            )


# %% [markdown]
# ## Problem 1: the induction head ($K = 16$, $d = 8$, $L = 64$, $M = 1$)
#
# ### Six models, $\tau = 1$: accuracy against context length

# %%
one = finish({name: runs(1, name, queries=1, delay=1) for name in ZOO})
plot({"τ = 1": one})

# %% [markdown]
# ### The same with a delay of $\tau = 5$

# %%
five = finish({name: runs(1, name, queries=1, delay=5) for name in ZOO})
plot({"τ = 1": one, "τ = 5": five})

# %% [markdown]
# ### Convergence: accuracy on a test batch against iterations (batch size 64)

# %%
plot({"τ = 1": one, "τ = 5": five}, training=True)

# %% [markdown]
# ### Comments

# %%
findings(1)

# %% [markdown]
# ## Problem 2: more queries ($K = 16$, $d = 8$, $L = 64$, $\tau = 1$)
#
# ### Mamba, $M = 4, 8, 16$

# %%
QUERIES = (4, 8, 16)
mamba = {m: finish({"mamba": runs(2, "mamba", queries=m)}) for m in QUERIES}
plot({f"M = {m}": mamba[m] for m in QUERIES})

# %% [markdown]
# ### The RoPE transformer, beside Mamba

# %%
rope = {m: finish({"transformer-rope": runs(2, "transformer-rope", queries=m)}) for m in QUERIES}
plot({f"M = {m}": mamba[m] | rope[m] for m in QUERIES})

# %% [markdown]
# ### The hybrids, beside both

# %%
hybrids = {
    m: finish({name: runs(2, name, queries=m) for name in ("hybrid-a", "hybrid-b")})
    for m in QUERIES
}
every = {f"M = {m}": rope[m] | mamba[m] | hybrids[m] for m in QUERIES}
plot(every)
plot(every, training=True)

# %% [markdown]
# ### Comments

# %%
findings(2)

# %% [markdown]
# ## Problem 3: Mamba with $d = 64$
#
# ### $\tau = 1$, $M = 4, 8, 16$

# %%
wide = {m: finish({"mamba": runs(3, "mamba", queries=m, width=64)}) for m in QUERIES}
plot({f"M = {m}, d = 64": wide[m] for m in QUERIES})
plot({f"M = {m}, d = 64": wide[m] for m in QUERIES}, training=True)

# %% [markdown]
# ### $M = 16$, $\tau = 10$

# %%
late = finish({"mamba": runs(3, "mamba", queries=16, delay=10, width=64)})
plot({"M = 16, τ = 1": wide[16], "M = 16, τ = 10": late})

# %% [markdown]
# ### Comments

# %%
findings(3)
