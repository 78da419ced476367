"""The commands: what each is for, where its class is, and how one is called.

A command's module is imported when it is called, so that `recall --help` does not wait for torch.
"""

import pkgutil
from typing import NamedTuple

from recall_arena.cli.command import Command, Mistake
from recall_arena.cli.console import errors, say_version, show_help
from recall_arena.cli.stopping import Stopped, end_cleanly, handled_by
from recall_arena.names import unknown


class Entry(NamedTuple):
    """A command's line in the help, and where its class is."""

    about: str
    place: str


COMMANDS = {
    "study run": Entry("run what a study lacks, then write its report", "study:StudyRun"),
    "study ls": Entry("the studies and their scales", "study:StudyLs"),
    "study choose-rates": Entry("choose among the rates that a search tried", "study:ChooseRates"),
    "study explain": Entry("look into finished runs, for the report", "study:Explain"),
    "train": Entry("train one model, show its accuracy, keep record and weights", "train:Train"),
    "extend": Entry("train a finished run further, or test it at more lengths", "extend:Extend"),
    "sweep": Entry("train a grid of runs, and choose the best", "sweep:Sweep"),
    "models": Entry("the models and mixers, and all options of each", "models:Models"),
    "check-mixer": Entry(
        "hold a mixer of your own against what every mixer promises", "check_mixer:CheckMixer"
    ),
    "evaluate": Entry("test a trained model at other context lengths", "evaluate:Evaluate"),
    "inspect": Entry("look into a trained model: what it binds, and how", "inspect:Inspect"),
    "report": Entry("write a study's report from the records there are", "report:Report"),
    "plot": Entry("draw any records: any column against another", "plot:Plot"),
    "runs ls": Entry("the records of a store", "runs:RunsLs"),
    "runs show": Entry("one record", "runs:RunsShow"),
    "runs save": Entry("write a trained model for transformers or mamba-ssm", "saving:RunsSave"),
    "runs rm": Entry("remove records and their weights", "removing:RunsRm"),
    "runs export": Entry("records with their curves as one table", "export:RunsExport"),
    "runs archive": Entry("pack a store's records into one Parquet file", "export:RunsArchive"),
    "verify": Entry("train records' runs again, and compare", "verify:Verify"),
    "doctor": Entry("versions, threads, and which kernels run and why", "doctor:Doctor"),
}
GROUPS = sorted({command.split()[0] for command in COMMANDS if " " in command})
HELP = ("-h", "--help")


def call(words: list[str]) -> int:
    """Run the command that the words spell; its exit code."""
    if words[:1] == ["help"]:
        words = [*words[1:], "--help"]
    if not words or words[0] in HELP or words in ([[group] for group in GROUPS]):
        return _explain(words, 0 if words and words[0] in HELP else 2)
    if words[0] in GROUPS and words[1] in HELP:
        return _explain(words, 0)
    if words[0] == "--version":
        say_version()
        return 0
    size = 2 if words[0] in GROUPS else 1
    name = " ".join(words[:size])
    if name not in COMMANDS:
        spelled = [word for word in words[:2] if not word.startswith("-")]
        errors(unknown("command", " ".join(spelled) if size == 1 else name, COMMANDS))
        return 2
    return _run(name, words[size:])


def _explain(words: list[str], code: int) -> int:
    """Show the commands, or those of a group; the exit code."""
    group = words[0] + " " if words and words[0] in GROUPS else ""
    show_help({n: entry.about for n, entry in COMMANDS.items() if n.startswith(group)}, group)
    return code


def _run(name: str, rest: list[str]) -> int:
    import tyro

    from recall_arena.cli.importing import check_folders, import_named
    from recall_arena.cli.stores import WAY_OUT
    from recall_arena.records import DamagedRecord

    options = (tyro.conf.FlagCreatePairsOff,)
    goes_on = False
    try:
        check_folders(rest)
        import_named(rest)
        place = f"recall_arena.cli.{COMMANDS[name].place}"
        kind: type[Command] = pkgutil.resolve_name(place)
        goes_on = kind.goes_on
        command = kind.spelled(rest)
        with handled_by(end_cleanly):
            return tyro.cli(command, prog=f"recall {name}", args=rest, config=options).run()
    except (Mistake, ImportError) as mistake:
        errors(str(mistake))
        return 2
    except DamagedRecord as damage:
        errors(f"{damage}; {WAY_OUT}")
        return 1
    except Stopped as stop:
        kept = "; what was written is kept, and the same command goes on from there"
        errors(f"{stop}{kept if goes_on else ''}")
        return stop.code
