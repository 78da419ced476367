"""The rows of results/benchmarks.jsonl that pages quote: one machine's, the newest that will do."""

from dataclasses import dataclass

from benchmarks.rows import Kept, Row, read, sizes
from benchmarks.tables import RESULTS

MACHINE = "AMD EPYC (Zen 3)"
Shape = dict[str, int]


@dataclass(frozen=True)
class Lookup:
    """The rows of one machine, oldest first."""

    kept: list[Kept]

    def together(
        self, part: str, subject: str, stage: str, shape: Shape, *contenders: str, threads: int = 1
    ) -> list[Row]:
        """The contenders' rows, in this order, from the newest run that has them all.

        A contender that has several modes is named without its mode.  Raises LookupError if no
        run has them all.
        """
        runs: dict[tuple[str, str], dict[str, Row]] = {}
        for each in self.kept:
            row = each.row
            wanted = (part, subject, shape, threads)
            if (
                isinstance(row, Row)
                and (row.part, row.subject, row.shape, row.threads) == wanted
                and row.stage == stage
            ):
                name = row.contender.split(", unroll")[0]
                runs.setdefault((each.origin.commit, each.origin.date), {})[name] = row
        for run in reversed(runs.values()):
            if set(contenders) <= run.keys():
                return [run[name] for name in contenders]
        raise LookupError(f"no run has {part}, {subject}, {stage}, {shape} of {contenders}")

    def newest(self) -> list[Row]:
        """The last measurement of each contender in each setting."""
        rows = [each.row for each in self.kept if isinstance(each.row, Row)]
        return list(
            {
                (r.part, r.subject, r.stage, sizes(r.shape), r.threads, r.contender): r
                for r in rows
            }.values()
        )


def published(machine: str = MACHINE) -> Lookup:
    """What results/ has of a machine."""
    rows = read(RESULTS / "benchmarks.jsonl")
    return Lookup([each for each in rows if each.origin.machine == machine])
