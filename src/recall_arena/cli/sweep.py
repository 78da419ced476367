"""`recall sweep`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from recall_arena.cli import options, stores
from recall_arena.cli.choice import show_choice
from recall_arena.cli.command import Mistake
from recall_arena.cli.console import errors, say_json, say_table, tell
from recall_arena.cli.described import Described
from recall_arena.cli.executing import How, finish
from recall_arena.cli.grid import Point, at_point, field_named, points_of
from recall_arena.executors import missing
from recall_arena.records import ADDRESS, Store
from recall_arena.runs import Run


@dataclass(frozen=True)
class Sweep(Described):
    """Train a run for every point of a grid, and choose the best.  Call it again to go on.

    The other flags say what all runs have in common.  The best is the one that is solved in the
    fewest iterations, else the most accurate on validation sequences: a median and a mean over the
    runs that differ in nothing but the seed.  None of which diverged is ever chosen.
    """

    goes_on = True

    grid: Annotated[
        tuple[str, ...],
        tyro.conf.UseAppendAction,
        tyro.conf.arg(
            help="a field and its values, such as rate=1e-3,3e-3 or 'model=mamba|mamba,attention'; "
            "all combinations of several are run"
        ),
    ] = ()
    per: Annotated[
        tuple[str, ...],
        tyro.conf.UseAppendAction,
        tyro.conf.arg(help="choose once for each value of this field of the grid, such as model"),
    ] = ()
    write: Annotated[
        Path | None, tyro.conf.arg(help="write what was chosen there as well, NAME.json")
    ] = None
    jobs: options.Jobs = None
    keep_weights: options.KeepWeights = False
    store: options.StoreFolder = Path("runs")
    dry_run: options.DryRun = False
    json: options.Json = False
    how: Annotated[How, tyro.conf.arg(name="")] = field(default_factory=How)

    def run(self) -> int:
        self.how.check()
        options.check_jobs(self.jobs)
        points = points_of(self, self.grid)
        per = [field_named(name, [*points[0]], "field of the grid") for name in self.per]
        grid = {run.address: (p, run) for p in points for run in [at_point(self, p).planned()]}
        store = stores.to_write(self.store)
        self._check_write()
        if self.dry_run:
            return self._list(grid, store)
        stores.prepare(self.store, *([] if self.write is None else [self.write.parent]))
        code = self._finish(grid, store)
        values = {address: point for address, (point, _) in grid.items()}
        show_choice(values, per, store, self.write, as_json=self.json)
        return code

    def _check_write(self) -> None:
        if self.write is None:
            return
        if self.write.suffix != ".json" or self.write.is_dir():
            raise Mistake(f"--write must be a file NAME.json, got {self.write}")
        beside = self.write.parent.resolve() == self.store.resolve()
        if beside or ADDRESS.fullmatch(self.write.stem):
            raise Mistake(f"{self.write} would be read as a record; write it to another folder")

    def _finish(self, grid: dict[str, tuple[Point, Run]], store: Store) -> int:
        """Run what is missing; 1 if a run failed, or its record is damaged."""
        names = {address: _named(point) for address, (point, _) in grid.items()}
        damaged = dict(stores.damaged_among(grid, store))
        sound = [run for address, (_, run) in grid.items() if address not in damaged]
        todo = missing(sound, store, keep_weights=self.keep_weights)
        if not self.how.quiet:
            tell(f"{len(todo)} of {len(grid)} runs to do")
        failed = finish(
            todo,
            {run.address: names[run.address] for run in todo},
            store,
            self.how,
            jobs=self.jobs,
            keep_weights=self.keep_weights,
        )
        for address, damage in damaged.items():
            errors(f"{names[address]}: {damage}; {stores.WAY_OUT}")
        return 1 if failed or damaged else 0

    def _list(self, grid: dict[str, tuple[Point, Run]], store: Store) -> int:
        rows = [
            {"address": address, **point, "state": "done" if address in store else "to do"}
            for address, (point, _) in grid.items()
        ]
        if self.json:
            say_json(rows)
        else:
            say_table([*rows[0]], [[*row.values()] for row in rows])
        return 0


def _named(point: Point) -> str:
    return ", ".join(f"{name.rpartition('.')[2]}={value}" for name, value in point.items())
