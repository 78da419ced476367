"""`recall study run`, `recall study ls`, `recall study choose-rates`, `recall study explain`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from recall_arena.cli import options, stores
from recall_arena.cli.command import Command, Mistake
from recall_arena.cli.console import errors, say, say_json, say_table, tell
from recall_arena.cli.executing import How, finish
from recall_arena.cli.plans import plan_of, study_named
from recall_arena.executors import Failed, missing
from recall_arena.index import contents_of
from recall_arena.records import Record, Store
from recall_arena.report import write_report
from recall_arena.reproduction import held_against
from recall_arena.studies import STUDIES, NamedRun, Plan, Section, Study, reproduced


@dataclass(frozen=True)
class StudyRun(Command):
    """Run what a study lacks, then write its report.  Call it again to finish what is missing."""

    goes_on = True

    study: options.StudyName
    scale: options.Scale = "quick"
    problem: options.Parts = ()
    seeds: options.Seeds = None
    jobs: options.Jobs = None
    keep_weights: options.KeepWeights = False
    imports: options.Imports = ()
    store: options.StoreFolder = Path("runs")
    out: options.Out = Path("report")
    against: options.Against = None
    dry_run: options.DryRun = False
    json: options.Json = False
    how: Annotated[How, tyro.conf.arg(name="")] = field(default_factory=How)
    verbose: options.Verbose = False

    def run(self) -> int:
        study = study_named(self.study)
        plan = plan_of(study, self.scale, self.problem, self.seeds)
        self.how.check()
        options.check_jobs(self.jobs)
        published = None if self.against is None else stores.opened(self.against)
        store = stores.to_write(self.store)
        if self.dry_run:
            return self._list(study.runs(plan, store), store)
        stores.prepare(self.store, self.out)
        names, failed = self._finish(study, plan, store)
        contents = contents_of(store)
        more = [] if published is None else self._held_against(published, study, plan, store)
        page = write_report(study, plan, contents.frame, self.out, contents.damaged, store, more)
        self._say(page, len(names), failed, names)
        return stores.tell_damaged(contents.damaged) or (1 if failed else 0)

    def _finish(
        self, study: Study, plan: Plan, store: Store
    ) -> tuple[dict[str, str], list[Failed]]:
        """Run what is missing until nothing is; the names of those runs, and which of them failed.

        A run whose record is damaged is not run, since its record could not be written.
        """
        names: dict[str, str] = {}
        while True:
            named = study.runs(plan, store)
            by_address = {one.run.address: one.name for one in named}
            damaged = [
                Failed(one, f"{why}; {stores.WAY_OUT}")
                for one, why in stores.damaged_among(by_address, store)
            ]
            blocked = {one.address for one in damaged}
            sound = [one.run for one in named if one.run.address not in blocked]
            runs = missing(sound, store, keep_weights=self.keep_weights)
            todo = {run.address: by_address[run.address] for run in runs}
            if not self.how.quiet and (todo or not names):
                tell(f"{len(todo)} of {len(named)} runs to do")
            for address, name in todo.items() if self.verbose else ():
                tell(f"{address} {name}")
            failed = finish(
                runs,
                todo,
                store,
                self.how,
                jobs=self.jobs,
                keep_weights=self.keep_weights,
            )
            names |= todo
            if failed or not todo:
                for one in damaged:
                    errors(f"{by_address[one.address]}: {one.reason}")
                return names | {one: by_address[one] for one in blocked}, failed + damaged

    def _held_against(
        self, published: Store, study: Study, plan: Plan, store: Store
    ) -> list[Section]:
        """The section on how the plan's finished runs compare with published ones; says so too."""
        records = store.read_all(one.run.address for one in study.runs(plan, store))
        others = [one for one in published.scan() if isinstance(one, Record)]
        frame = contents_of(published).frame
        found = list(held_against(records, others))
        if not self.json:
            say(reproduced.summary(found, len(records)))
        return [reproduced.section(found, frame, len(records))] if found else []

    def _list(self, named: list[NamedRun], store: Store) -> int:
        addresses = [one.run.address for one in named]
        damaged = {address for address, _ in stores.damaged_among(addresses, store)}
        states = {True: "done", False: "to do"}
        rows = [
            (address, one.name, "damaged" if address in damaged else states[address in store])
            for one in named
            for address in [one.run.address]
        ]
        if self.json:
            say_json([dict(zip(("address", "name", "state"), row, strict=True)) for row in rows])
        else:
            say_table(("address", "run", "state"), rows)
        return 0

    def _say(self, page: Path, executed: int, failed: list[Failed], names: dict[str, str]) -> None:
        if self.json:
            broken = {names[failure.address]: failure.reason for failure in failed}
            say_json({"report": str(page), "finished": executed - len(failed), "failed": broken})
            return
        if failed:
            say(f"{len(failed)} of {executed} runs failed; the same command tries them again")
        say(str(page))


@dataclass(frozen=True)
class StudyLs(Command):
    """The studies, their questions and their scales."""

    imports: options.Imports = ()
    json: options.Json = False

    def run(self) -> int:
        if self.json:
            say_json(
                [
                    {"name": s.name, "question": s.question, "scales": s.scales}
                    for s in STUDIES.values()
                ]
            )
            return 0
        for study in STUDIES.values():
            say(f"{study.name}: {study.question}")
            width = max(map(len, study.scales))
            for scale, about in study.scales.items():
                say(f"    --scale {scale:<{width}} {about}")
        return 0


@dataclass(frozen=True)
class ChooseRates(Command):
    """Choose each setting's learning rate from a finished search, for all later studies.

    Writes the file inside the package that the studies read their rates from, so it is meant
    for a checkout.
    """

    study: options.StudyName = "rates"
    scale: options.Scale = "quick"
    problem: options.Parts = ()
    store: options.StoreFolder = Path("results/records")

    def run(self) -> int:
        study = study_named(self.study)
        if study.choose is None:
            raise Mistake(f"the study {study.name!r} chooses nothing")
        plan = plan_of(study, self.scale, self.problem, None)
        try:
            say(str(study.choose(plan, stores.opened(self.store))))
        except ValueError as lacking:
            again = f"`recall study run {study.name} --scale {plan.scale}` finishes them"
            raise Mistake(f"{lacking}; {again}") from None
        return 0


@dataclass(frozen=True)
class Explain(Command):
    """Look into a study's finished runs whose weights were kept, for the report's part "Why".

    Writes the file inside the package that reports read, so it is meant for a checkout;
    `recall inspect ADDRESS` draws what happens inside one run.
    """

    study: options.StudyName = "assignment"
    scale: options.Scale = "quick"
    store: options.StoreFolder = Path("runs")

    def run(self) -> int:
        study = study_named(self.study)
        if study.explain is None:
            raise Mistake(f"the study {study.name!r} explains nothing")
        plan = plan_of(study, self.scale, (), None)
        try:
            looked, lacking = study.explain(plan, stores.opened(self.store))
        except ValueError as damaged:
            raise Mistake(str(damaged)) from None
        without = f"; {lacking} have no weights: `--keep-weights` keeps them" if lacking else ""
        say(f"{looked} runs looked into{without}")
        return 0
