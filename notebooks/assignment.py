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
# missing is trained. The environment variables `RECALL_SCALE` (smoke, quick, published, evidence)
# and `RECALL_STORE` (a folder) choose how much is spent and where the records are.

# %%
# %matplotlib inline
import os
from pathlib import Path

import polars as pl
import torch
from IPython.display import Markdown, display

from recall_arena.claims import decide
from recall_arena.evaluation import Contexts
from recall_arena.executors import Failed, cores, execute_all
from recall_arena.figures import Drawing, by_context, by_iterations, known_queries
from recall_arena.frame import frame_of, runs_of
from recall_arena.model import SequenceModel, named, unit_embedding
from recall_arena.records import Store
from recall_arena.runs import Run
from recall_arena.studies import Plan
from recall_arena.studies.assignment import rates
from recall_arena.studies.assignment.claims import ALL, CLAIMS
from recall_arena.studies.assignment.scales import SCALES
from recall_arena.studies.assignment.settings import table_of
from recall_arena.tasks import AssociativeRecall
from recall_arena.training import Schedule
from recall_arena.zoo import ZOO

PLAN = Plan(os.environ.get("RECALL_SCALE", "published"), parts=(1, 2, 3))
SCALE = SCALES[PLAN.scale]
STORE = Store(Path(os.environ.get("RECALL_STORE", "../results/records")))
VOCABULARY, L = 16, 64
CHOSEN = rates.best(rates.published(PLAN))  # searched beforehand

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
# checks in a row of at least 99.9 % end a run. All records together are one table, the frame, from
# which figures and comments are made.


# %%
def train(problem: int, *names: str, queries: int = 1, delay: int = 1, width: int = 8):
    """The frame of these models on one task, a run a seed; trains what the store lacks."""
    runs = []
    for name in names:
        effort = SCALE.problems[problem].runs_of(name)  # iterations and seeds
        setting = {"model": name, "d": width, "M": queries, "tau": delay}
        (rate,) = CHOSEN.filter([pl.col(column) == setting[column] for column in setting])["rate"]
        runs += [
            Run(
                task=AssociativeRecall(vocabulary=VOCABULARY, queries=queries, delay=delay),
                model=model(name, width),
                schedule=Schedule(
                    rate=rate,
                    steps=effort.steps,
                    decay_steps=effort.decay_steps,
                    context=L,
                    batch=64,
                ),
                contexts=Contexts(first=SCALE.first, last=3 * L, stride=SCALE.stride),
                seed=seed,
            )
            for seed in effort.of(None)
        ]
    for event in execute_all(runs, STORE, jobs=cores()):
        if isinstance(event, Failed):
            raise RuntimeError(event.reason)
    return frame_of(STORE.read_all(run.address for run in runs))


def show(drawing: Drawing) -> None:
    """A figure with its caption."""
    display(drawing.figure, Markdown(drawing.caption))


def comment(problem: int, frame: pl.DataFrame) -> None:
    """What the runs say to each "comment on" of a problem."""
    findings = decide(ALL, runs_of(frame), table_of((1, 2, 3)))
    for claim in CLAIMS[problem]:
        found = findings[claim.question]
        verdict = (found.verdict or "no verdict").capitalize()
        display(
            Markdown(
                f"**{found.question}** *{verdict}.* {found.comment} "
                f"(Hypothesis: {found.hypothesis} Measured: {found.measured}.)"
            )
        )


# %% [markdown]
# ## Problem 1: the induction head ($K = 16$, $d = 8$, $L = 64$, $M = 1$)
#
# ### Six models, $\tau = 1$: accuracy against context length

# %%
one = train(1, *ZOO, queries=1, delay=1)
show(by_context(one, "Six models", ["tau"]))

# %% [markdown]
# ### The same with a delay of $\tau = 5$

# %%
five = train(1, *ZOO, queries=1, delay=5)
induction = pl.concat([one, five])
show(by_context(five, "Six models", ["tau"]))
show(by_context(induction, "Both delays, a panel a model", ["model"], "tau"))

# %% [markdown]
# ### Convergence: accuracy on a test batch against iterations (batch size 64)

# %%
show(by_iterations(induction, "Convergence", ["tau"]))

# %% [markdown]
# ### Comments

# %%
comment(1, induction)

# %% [markdown]
# ## Problem 2: more queries ($K = 16$, $d = 8$, $L = 64$, $\tau = 1$)
#
# ### Mamba, $M = 4, 8, 16$

# %%
QUERIES = (4, 8, 16)
mamba = pl.concat([train(2, "mamba", queries=M) for M in QUERIES])
show(by_context(mamba, "Mamba", ["M"]))

# %% [markdown]
# ### The RoPE transformer, beside Mamba

# %%
rope = pl.concat([train(2, "transformer-rope", queries=M) for M in QUERIES])
show(by_context(pl.concat([mamba, rope]), "The RoPE transformer and Mamba", ["M"]))

# %% [markdown]
# ### The hybrids, beside both

# %%
hybrids = pl.concat([train(2, "hybrid-a", "hybrid-b", queries=M) for M in QUERIES])
every = pl.concat([mamba, rope, hybrids])
show(by_context(every, "All models", ["M"]))
show(by_iterations(every, "Convergence", ["M"]))
show(known_queries(every, "Queries known along training", ["M"]))

# %% [markdown]
# ### Comments

# %%
comment(2, every)

# %% [markdown]
# ## Problem 3: Mamba with $d = 64$
#
# ### $\tau = 1$, $M = 4, 8, 16$

# %%
wide = pl.concat([train(3, "mamba", queries=M, width=64) for M in QUERIES])
show(by_context(pl.concat([mamba, wide]), "Both widths", ["M"], "d"))
show(by_iterations(pl.concat([mamba, wide]), "Both widths", ["M"], "d"))

# %% [markdown]
# ### $M = 16$, $\tau = 10$

# %%
late = train(3, "mamba", queries=16, delay=10, width=64)
full = pl.concat([wide.filter(pl.col("M") == 16), late])
show(by_context(full, "Both delays", ["M"], "tau"))
show(by_iterations(full, "Both delays", ["M"], "tau"))

# %% [markdown]
# ### Comments

# %%
comment(3, pl.concat([mamba, wide, late]))
