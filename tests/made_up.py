"""Records made up for tests: what a run found, said by a few numbers."""

from collections.abc import Mapping, Sequence

from recall_arena.records import Cost, Outcome, Provenance, Record, Tally, address_of
from recall_arena.zoo import ZOO

SEQUENCES = 1000


def tally(
    shares: Mapping[int, float], by_query: Sequence[Sequence[float]] = (), repeats: float = 1.0
) -> Tally:
    """Counts of a thousand sequences at each position, fifty of which have v = q."""
    rows = len(shares)
    queries = by_query or [[share] for share in shares.values()]
    return Tally(
        at=list(shares),
        total=[SEQUENCES] * rows,
        correct=[round(SEQUENCES * share) for share in shares.values()],
        total_by_query=[[SEQUENCES // len(row)] * len(row) for row in queries],
        correct_by_query=[[round(SEQUENCES // len(row) * s) for s in row] for row in queries],
        total_repeats=[50] * rows,
        correct_repeats=[round(50 * repeats * (share > 0)) for share in shares.values()],
    )


def record(
    model: str = "mamba",
    seed: int = 0,
    *,
    at_L: float = 1.0,
    below: float = 1.0,
    beyond: float = 1.0,
    checks: Tally | None = None,
    steps_99: int | None = None,
    ended_by: str = "budget",
    contexts: Tally | None = None,
    d: int = 8,
    M: int = 1,
    tau: int = 1,
    rate: float = 0.01,
    budget: int = 30_000,
    revision: int = 6,
    shortest: int | None = None,
    decay_steps: int | None = None,
    repeats: bool = True,
) -> Record:
    """A run of a model at L = 64, tested at 32, 64, 128 and 192 unless said otherwise.

    `steps_99` is when its validation accuracy first was 99 %; if None, it never was.
    """
    if checks is None:
        checks = tally({100: 0.05, **({steps_99: 0.99} if steps_99 else {budget: min(at_L, 0.98)})})
    task = {"kind": "associative-recall", "vocabulary": 16, "queries": M, "delay": tau}
    task |= {} if repeats else {"repeats": False}
    schedule = {"rate": rate, "steps": budget, "context": 64, "batch": 64, "warmup": 200}
    given = {"shortest": shortest, "decay_steps": decay_steps}
    schedule |= {name: value for name, value in given.items() if value is not None}
    layers, positions = model.split(","), "none"
    if model in ZOO:
        layers, positions = list(ZOO[model].layers), ZOO[model].positions
    run = {
        "revision": revision,
        "task": task,
        "model": {"layers": layers, "width": d, "positions": positions},
        "schedule": {**schedule, "decay": 0.2, "clip": 1.0},
        "checks": {"every": 100, "sequences": SEQUENCES, "solved": 0.999, "running": 5},
        "contexts": {"first": 32, "last": 192, "stride": 32, "sequences": SEQUENCES},
        "seed": seed,
    }
    return Record(
        address=f"{model} {d} {M} {tau} {seed} {rate} {budget} {revision} {shortest} {repeats}",
        run=run,
        outcome=Outcome(
            ended_by=ended_by,  # type: ignore[arg-type]
            steps=checks.at[-1] if checks.at else 3,
            solved_at=steps_99 if ended_by == "solved" else None,
            losses=[1.0] * len(checks.at),
            checks=checks,
            contexts=contexts or tally({32: below, 64: at_L, 128: beyond, 192: beyond}),
        ),
        cost=Cost(100, 10, 1.0, 0.5),
        provenance=Provenance({"python": "3"}, "compiled", 1, "Linux", "2026"),
    )


def kept(
    seed: int = 0,
    *,
    parameters: int = 100,
    checks: int = 3,
    model: str = "mamba",
    rate: float = 0.01,
) -> Record:
    """A small record as a run may have made it, whose counts agree, so that a store keeps it."""
    steps = range(10, 10 * checks + 1, 10)
    run = record(model, seed, M=2, rate=rate).run
    run |= {
        "schedule": {**run["schedule"], "steps": 10 * checks},
        "checks": {"every": 10, "sequences": 8, "solved": 0.999, "running": 5},
        "contexts": {"first": None, "last": 5, "stride": 1, "sequences": 4},
    }
    return Record(
        address=address_of(run),
        run=run,
        outcome=Outcome(
            ended_by="budget",
            steps=10 * checks,
            solved_at=None,
            losses=[1 / 3] * checks,
            checks=Tally(
                list(steps),
                [8] * checks,
                [5] * checks,
                [[5, 3]] * checks,
                [[5, 0]] * checks,
                [1] * checks,
                [0] * checks,
            ),
            contexts=Tally(
                at=[2, 3, 4, 5],
                total=[4, 4, 4, 4],
                correct=[1, 4, 0, 2],
                total_by_query=[[4], [3, 1], [0, 4], [2, 2]],
                correct_by_query=[[1], [3, 1], [0, 0], [1, 1]],
                total_repeats=[1, 0, 2, 1],
                correct_repeats=[0, 0, 0, 1],
            ),
        ),
        cost=Cost(parameters, state_size=608, training_seconds=1.25, evaluation_seconds=0.5),
        provenance=Provenance(
            {"torch": "2", "recall-arena": "0.1.0"},
            *("compiled, avx2", 1, "Linux x86_64", "2024-04-18T23:59:00+00:00"),
            *("kernels' hash", "package's hash"),
        ),
        weights="weights' hash",
    )
