"""`recall report`."""

from dataclasses import dataclass
from pathlib import Path

from recall_arena.cli import options, stores
from recall_arena.cli.command import Command
from recall_arena.cli.console import say, say_json
from recall_arena.cli.plans import plan_of, study_named
from recall_arena.index import contents_of
from recall_arena.report import write_report


@dataclass(frozen=True)
class Report(Command):
    """Write a study's report from the records there are; nothing is trained."""

    study: options.StudyName = "assignment"
    scale: options.Scale = "quick"
    problem: options.Parts = ()
    seeds: options.Seeds = None
    imports: options.Imports = ()
    store: options.StoreFolder = Path("runs")
    out: options.Out = Path("report")
    json: options.Json = False

    def run(self) -> int:
        study = study_named(self.study)
        plan = plan_of(study, self.scale, self.problem, self.seeds)
        store = stores.opened(self.store)
        stores.prepare(self.out)
        contents = contents_of(store)
        page = write_report(study, plan, contents.frame, self.out, contents.damaged, store)
        if self.json:
            say_json({"report": str(page)})
        else:
            say(str(page))
        return stores.tell_damaged(contents.damaged)
