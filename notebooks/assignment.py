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
# A sequence ends with a query token that appeared once before; the
# model must name the token that stood τ positions after that first
# appearance. M tokens may be asked for; M = 1 is the induction head.
# Models are trained on sequences with L = 64 tokens before the query
# and tested at every length from τ + 1 to 3L = 192.
#
# First the sampler, the models and the training loop, in plain PyTorch,
# each held against the package's own. Then the experiments: a run is a
# value (task, model, schedule, seed) whose record is looked up in a
# store; what is missing is trained. Then the answers, bullet by bullet.
#
# The environment variables `RECALL_SCALE` (smoke, quick, published,
# evidence) and `RECALL_STORE` (a folder) choose how much is spent and
# where the records are. As it stands the notebook shows the published
# runs, with the seeds and the verdicts of the report.

# %%
# %matplotlib inline
import os
import time
from copy import deepcopy
from pathlib import Path

import polars as pl
import torch
import torch.nn.functional as F
from IPython import get_ipython
from IPython.display import Markdown, display

from recall_arena import mechanism, mechanism_figures
from recall_arena.claims import decide
from recall_arena.compiled import Compiled
from recall_arena.evaluation import Contexts
from recall_arena.executors import Failed, cores, execute_all
from recall_arena.figures import (
    Drawing,
    by_context,
    by_iterations,
    known_queries,
)
from recall_arena.frame import frame_of
from recall_arena.inspection import inspect
from recall_arena.model import SequenceModel, named
from recall_arena.outcomes import runs_of
from recall_arena.probes import Sequences
from recall_arena.records import Store
from recall_arena.runs import Run
from recall_arena.studies import Plan
from recall_arena.studies.assignment import (
    pictures,
    prose,
    rates,
    tables,
)
from recall_arena.studies.assignment.bullets import BULLETS
from recall_arena.studies.assignment.claims import ALL, BY_BULLET
from recall_arena.studies.assignment.playable import playable
from recall_arena.studies.assignment.scales import SCALES
from recall_arena.studies.assignment.settings import table_of
from recall_arena.tasks import AssociativeRecall
from recall_arena.trained import trained
from recall_arena.training import Schedule, Training
from recall_arena.zoo import ZOO

SCALE_NAME = os.environ.get("RECALL_SCALE", "published")
PLAN = Plan(SCALE_NAME, parts=(1, 2, 3))
SCALE = SCALES[PLAN.scale]
FOLDER = os.environ.get("RECALL_STORE", "../results/records")
STORE = Store(Path(FOLDER))
VOCABULARY, L = 16, 64

if shell := get_ipython():  # each cell says how long it took
    began = [0.0]

    def start(*_):
        began[0] = time.perf_counter()

    def finish(*_):
        print(f"[{time.perf_counter() - began[0]:.1f} s]")

    shell.events.register("pre_run_cell", start)
    shell.events.register("post_run_cell", finish)
    start()

# %% [markdown]
# ## The sampler
#
# A query, a value, a place; the filler is any token but the query, so
# the pair is the only one.


# %%
def sample(batch, context, queries, delay, rng: torch.Generator):
    """Sequences (batch, context + 1), the query last; their values."""
    query = torch.randint(queries, (batch, 1), generator=rng)
    value = torch.randint(VOCABULARY, (batch, 1), generator=rng)
    first = torch.randint(context - delay, (batch, 1), generator=rng)
    others, places = VOCABULARY - 1, (batch, context)
    filler = torch.randint(others, places, generator=rng)
    body = filler + (filler >= query)  # steps over it, stays uniform
    body.scatter_(1, first, query)
    body.scatter_(1, first + delay, value)
    return torch.cat([body, query], dim=1), value.squeeze(1)


for queries, delay in ((1, 1), (1, 5), (16, 1), (16, 10)):
    rng = torch.Generator().manual_seed(0)
    tokens, answers = sample(256, L, queries, delay, rng)
    task = AssociativeRecall(VOCABULARY, queries, delay)
    own = task.sample(256, L, rng.manual_seed(0))
    assert tokens.equal(own.tokens)
    assert answers.equal(own.answers)

tokens, answers = sample(2, 12, 4, 1, torch.Generator().manual_seed(0))
print("tokens ", *tokens.tolist(), sep="\n")
print("answers", answers.tolist())

# %% [markdown]
# ## The models
#
# Two blocks `x + mixer(norm(x))` (three in Hybrid-B), a final norm, a
# readout. The embedding is random, of unit length, and frozen.


# %%
def attention(mixer, x):
    """One head, causal; RoPE turns q and k by their position."""
    q, k, v = mixer.in_proj(x).chunk(3, dim=-1)
    if mixer.positions == "rope":
        half, places = x.shape[2] // 2, torch.arange(x.shape[1])
        angle = places[:, None] * 10_000 ** (-torch.arange(half) / half)

        def turned(u):
            left, right = u.chunk(2, dim=-1)
            ahead = left * angle.cos() - right * angle.sin()
            behind = right * angle.cos() + left * angle.sin()
            return torch.cat([ahead, behind], dim=-1)

        q, k = turned(q), turned(k)
    scores = q @ k.mT / q.shape[2] ** 0.5
    later = torch.ones_like(scores[0], dtype=torch.bool).triu(1)
    weights = scores.masked_fill(later, -torch.inf).softmax(dim=-1)
    return mixer.out_proj(weights @ v)


def mamba(mixer, x):
    """h = exp(Δ A) h + Δ B u; y = C h + D u, gated: arXiv:2312.00752."""
    u, gate = mixer.in_proj(x).chunk(2, dim=-1)
    u = F.silu(mixer.conv1d(u.mT)[..., : x.shape[1]].mT)
    rank, state = mixer.dt_proj.in_features, mixer.A_log.shape[1]
    delta, B, C = mixer.x_proj(u).split([rank, state, state], dim=-1)
    delta, A = F.softplus(mixer.dt_proj(delta)), -mixer.A_log.exp()
    h, y = 0, []
    for t in range(x.shape[1]):
        write = (delta[:, t] * u[:, t])[..., None] * B[:, t, None]
        h = (delta[:, t, :, None] * A).exp() * h + write
        y.append((h @ C[:, t, :, None]).squeeze(-1) + mixer.D * u[:, t])
    return mixer.out_proj(torch.stack(y, dim=1) * F.silu(gate))


def logits(model, tokens):
    """What the model says stands after the last token."""
    x = model.embedding(tokens)
    if model.positions is not None:
        x = x + model.positions.weight[: tokens.shape[1]]
    for block in model.layers:
        mixer = mamba if hasattr(block.mixer, "A_log") else attention
        x = x + mixer(block.mixer, block.norm(x))
    return model.lm_head(model.norm_f(x[:, -1]))


def specification(name: str, width: int):
    """A model of the assignment; learned positions reach up to 3L."""
    reach = {"vocabulary": VOCABULARY, "longest_context": 3 * L}
    return named(name, width=width, **reach)


tokens, _ = sample(32, L, 16, 1, torch.Generator().manual_seed(1))
for name in ZOO:
    torch.manual_seed(0)
    model = SequenceModel(specification(name, 8))
    theirs = model(tokens)
    assert torch.allclose(logits(model, tokens), theirs, atol=1e-5), name
    norms = model.embedding.weight.norm(dim=1)
    assert torch.allclose(norms, torch.ones(VOCABULARY))
    assert not model.embedding.weight.requires_grad
    layers = " + ".join(ZOO[name].layers)
    numbers = model.trained_parameters()
    print(f"{name:<20}{layers:<33}{numbers:>5,} weights: equal")

# %% [markdown]
# ## The training loop
#
# Fresh sequences at every iteration, AdamW without weight decay, a
# warm-up, the loss on the last position only, gradients clipped to a
# norm of one. Here ten iterations by hand and by the package, from the
# same weights: the losses agree.


# %%
def train_by_hand(model, schedule: Schedule, batches) -> list[float]:
    """The loss at each iteration."""
    trained_ones = [w for w in model.parameters() if w.requires_grad]
    optimizer = torch.optim.AdamW(trained_ones, weight_decay=0.0)
    losses = []
    for step, (tokens, answers) in enumerate(batches):
        loss = F.cross_entropy(logits(model, tokens), answers)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained_ones, schedule.clip)
        for group in optimizer.param_groups:
            group["lr"] = schedule.rate_at(step)
        optimizer.step()
        losses.append(loss.item())
    return losses


schedule = Schedule(rate=3e-3, steps=10, context=L, batch=64)
task = AssociativeRecall(VOCABULARY)
for name in ("transformer-rope", "mamba", "hybrid-a"):
    torch.manual_seed(0)
    by_hand = SequenceModel(specification(name, 8))
    by_package = deepcopy(by_hand)
    course = schedule.course(task)
    steps = range(schedule.steps)
    drawn = [course.sample(step, schedule.batch, 0) for step in steps]
    batches = [(batch.tokens, batch.answers) for batch in drawn]
    ours = torch.tensor(train_by_hand(by_hand, schedule, batches))
    step, weights = Compiled(by_package), by_package.parameters()
    training = Training(
        weights, step.loss_and_gradient, task, schedule, 0
    )
    theirs = torch.tensor(list(training))
    assert torch.allclose(ours, theirs, atol=1e-3), name
    print(f"{name:<20} loss {ours[0]:.3f} to {ours[-1]:.3f}", end="")
    print(f", as the package's {theirs[-1]:.3f}")

# %% [markdown]
# ## The experiments
#
# Every setting of the three problems, at the rate that a search chose
# for it. Every 100 iterations the accuracy on one held-out batch is
# taken; five checks in a row of at least 99.9 % end a run. All records
# together are one table, the frame, from which figures and comments are
# made.

# %%
CHOSEN = rates.best(rates.published(PLAN))  # searched beforehand
print(f"From nothing: {SCALE.about}.")


def train(problem: int, *names: str, queries=1, delay=1, width=8):
    """The frame of models on a task, a run a seed; trains if missing."""
    runs = []
    task = AssociativeRecall(VOCABULARY, queries, delay)
    contexts = Contexts(
        first=SCALE.first, last=3 * L, stride=SCALE.stride
    )
    for name in names:
        effort = SCALE.problems[problem].runs_of(name)
        own = {"model": name, "d": width, "M": queries, "tau": delay}
        (rate,) = CHOSEN.filter(**own)["rate"]
        schedule = Schedule(
            rate=rate,
            steps=effort.steps,
            decay_steps=effort.decay_steps,
            context=L,
            batch=64,
        )
        model = specification(name, width)
        for seed in effort.of(None):
            run = Run(task, model, schedule, contexts=contexts, seed=seed)
            runs.append(run)
    for event in execute_all(runs, STORE, jobs=cores()):
        if isinstance(event, Failed):
            raise RuntimeError(event.reason)
    return frame_of(STORE.read_all(run.address for run in runs))


QUERIES = (4, 8, 16)
one = train(1, *ZOO, queries=1, delay=1)
five = train(1, *ZOO, queries=1, delay=5)
mamba8 = pl.concat([train(2, "mamba", queries=M) for M in QUERIES])
rope = "transformer-rope"
rope8 = pl.concat([train(2, rope, queries=M) for M in QUERIES])
hybrids = ("hybrid-a", "hybrid-b")
hybrids8 = pl.concat([train(2, *hybrids, queries=M) for M in QUERIES])
wide = [train(3, "mamba", queries=M, width=64) for M in QUERIES]
mamba64 = pl.concat(wide)
late64 = train(3, "mamba", queries=16, delay=10, width=64)

frame = pl.concat([one, five, mamba8, rope8, hybrids8, mamba64, late64])
settings = table_of(PLAN.parts)
found = runs_of(frame).sort("seed")
runs = settings.join(found, on=("model", "d", "M", "tau"))
findings = decide(ALL, runs, settings)
published = PLAN.scale == "published"
written = prose.of_store(STORE.folder) if published else {}
print(f"{runs.height} runs of {settings.height} settings")


# %%
def show(drawing: Drawing) -> None:
    """A figure with its caption."""
    display(drawing.figure, Markdown(drawing.caption))


def comment(bullet: str) -> None:
    """What was asked, what was written, and what the claims came to."""
    lines = [f"> {BULLETS[bullet].asked}", *written.get(bullet, ())]
    for claim in BY_BULLET[bullet]:
        found = findings[claim.question]
        verdict = (found.verdict or "no verdict").capitalize()
        lines.append(f"**{found.question}** *{verdict}.* {found.comment}")
        lines[-1] += f" (Hypothesis: {found.hypothesis})"
    display(Markdown("\n\n".join(lines)))


show(pictures.overview(runs).drawing)

# %% [markdown]
# ## Problem 1: the induction head (K = 16, d = 8, L = 64, M = 1)
#
# ### Six models, τ = 1: accuracy against context length

# %%
show(by_context(one, "Six models", ["tau"]))
comment("p1-1")

# %% [markdown]
# ### The same with a delay of τ = 5

# %%
show(by_context(five, "Six models", ["tau"]))
both = pl.concat([one, five])
show(by_context(both, "Both delays, a panel a model", ["model"], "tau"))
comment("p1-2")

# %% [markdown]
# ### Convergence: accuracy against iterations (batches of 64)

# %%
show(by_iterations(both, "Convergence", ["tau"]))
comment("p1-3")

# %% [markdown]
# ### Inside: what attention looks at, and what Mamba writes
#
# Models whose weights were kept, on sequences whose value is not the
# query; offsets count from the query's first appearance, so the value
# has offset τ = 1. On the left of each figure every layer by offset:
# the weight of the final query's attention, or Δ, how much Mamba
# writes.

# %%
asked = Sequences.of(AssociativeRecall(VOCABULARY), L, 400)


def inside(name: str, network: SequenceModel) -> None:
    """What attention looks at, on average and once; what Mamba writes."""
    bars = mechanism_figures.by_offset
    looked = mechanism.looked_at(network, asked)
    filled = mechanism.written(network, asked)
    if looked.height:
        what = f"{name}: attention weight"
        display(bars(looked, "weight", what, asked.delay)[0])
    first = asked.tokens[0]
    for number, tensors in enumerate(inspect(network, first[None])):
        if "weights" in tensors:
            weights = tensors["weights"][0].mean(dim=0).detach()
            map_of = mechanism_figures.attention_map
            display(map_of(weights, first, number)[0])
    if filled.height:
        display(bars(filled, "weight", f"{name}: Δ", asked.delay)[0])


weights = STORE.folder / "weights"
for kind in playable(frame):
    for address in kind.addresses:
        if (weights / f"{address}.safetensors").exists():
            inside(kind.name, trained(address, STORE.folder)[1])
            break

# %% [markdown]
# ## Problem 2: more queries (K = 16, d = 8, L = 64, τ = 1)
#
# ### Mamba, M = 4, 8, 16

# %%
show(by_context(mamba8, "Mamba", ["M"]))
show(known_queries(mamba8, "Queries known along training", ["M"]))
comment("p2-1")

# %% [markdown]
# ### The RoPE transformer, beside Mamba

# %%
both = pl.concat([mamba8, rope8])
show(by_context(both, "The RoPE transformer and Mamba", ["M"]))
comment("p2-2")

# %% [markdown]
# ### The hybrids, beside both

# %%
every = pl.concat([mamba8, rope8, hybrids8])
show(by_context(every, "All models", ["M"]))
show(by_iterations(every, "Convergence", ["M"]))
show(known_queries(every, "Queries known along training", ["M"]))
comment("p2-3")

# %% [markdown]
# ## Problem 3: Mamba with d = 64
#
# ### τ = 1, M = 4, 8, 16: d = 8 on d = 64

# %%
both = pl.concat([mamba8, mamba64])
show(by_context(both, "Both widths", ["M"], "d"))
show(by_iterations(both, "Both widths", ["M"], "d"))
comment("p3-1")

# %% [markdown]
# ### M = 16, τ = 10

# %%
full = pl.concat([mamba64.filter(pl.col("M") == 16), late64])
show(by_context(full, "Both delays", ["M"], "tau"))
show(by_iterations(full, "Both delays", ["M"], "tau"))
comment("p3-2")

# %% [markdown]
# ## Conclusion

# %%
for paragraph in written.get("summary", ()):
    display(Markdown(paragraph))
conclusion = tables.summary(runs, settings)
shown = conclusion.rows.fill_null("")
shown = shown.with_columns(pl.col("task").str.replace_all(" = ", "="))
display(Markdown(conclusion.caption))
with pl.Config(
    tbl_formatting="MARKDOWN",
    tbl_hide_column_data_types=True,
    tbl_hide_dataframe_shape=True,
    tbl_rows=-1,
    tbl_cols=-1,
    tbl_width_chars=-1,
    fmt_str_lengths=60,
):
    display(Markdown(str(shown)))
