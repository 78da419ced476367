"""The command `recall`.  Only this package prints.

Each command is a frozen dataclass whose fields are its flags and whose `run` gives the exit
code: 0; 1 if a run failed; 2 for a mistake in what was typed; 130 or 143 after a clean stop.
Commands are imported when they are called, so that `recall --help` does not wait for torch.
"""

import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import FrameType

from recall_arena.cli.command import Command, Mistake
from recall_arena.cli.console import errors, show_help
from recall_arena.names import unknown


@dataclass(frozen=True)
class Entry:
    """A command's line in the help, and how to come by its class."""

    about: str
    load: Callable[[], type[Command]]


def _study_run() -> type[Command]:
    from recall_arena.cli.study import StudyRun

    return StudyRun


def _study_ls() -> type[Command]:
    from recall_arena.cli.study import StudyLs

    return StudyLs


def _choose_rates() -> type[Command]:
    from recall_arena.cli.study import ChooseRates

    return ChooseRates


def _train() -> type[Command]:
    from recall_arena.cli.train import Train

    return Train


def _evaluate() -> type[Command]:
    from recall_arena.cli.evaluate import Evaluate

    return Evaluate


def _report() -> type[Command]:
    from recall_arena.cli.report import Report

    return Report


def _runs_ls() -> type[Command]:
    from recall_arena.cli.runs import RunsLs

    return RunsLs


def _runs_show() -> type[Command]:
    from recall_arena.cli.runs import RunsShow

    return RunsShow


def _runs_export() -> type[Command]:
    from recall_arena.cli.runs import RunsExport

    return RunsExport


def _doctor() -> type[Command]:
    from recall_arena.cli.doctor import Doctor

    return Doctor


COMMANDS = {
    "study run": Entry("run what a study lacks, then write its report", _study_run),
    "study ls": Entry("the studies and their scales", _study_ls),
    "study choose-rates": Entry("choose among the rates that a search tried", _choose_rates),
    "train": Entry("train one model, show its accuracy, keep its record and weights", _train),
    "evaluate": Entry("test a trained model at other context lengths", _evaluate),
    "report": Entry("write a study's report from the records there are", _report),
    "runs ls": Entry("the records of a store", _runs_ls),
    "runs show": Entry("one record", _runs_show),
    "runs export": Entry("all records as one CSV table", _runs_export),
    "doctor": Entry("versions, threads, and which kernels run and why", _doctor),
}


def main(arguments: Sequence[str]) -> int:
    """Run the command that the arguments spell, and return its exit code."""
    words = list(arguments)
    if not words or words[0] in ("-h", "--help"):
        show_help({name: entry.about for name, entry in COMMANDS.items()})
        return 0 if words else 2
    if words[0] == "--version":
        from recall_arena.cli.console import say_version

        say_version()
        return 0
    name, rest = _split(words)
    if name not in COMMANDS:
        errors(unknown("command", " ".join(words[:2]) if name == words[0] else name, COMMANDS))
        return 2
    return _run(name, rest)


def _split(words: list[str]) -> tuple[str, list[str]]:
    """The command's name, of one word or two, and what follows it."""
    grouped = {command.split()[0] for command in COMMANDS if " " in command}
    size = 2 if words[0] in grouped else 1
    return " ".join(words[:size]), words[size:]


def _run(name: str, rest: list[str]) -> int:
    import tyro

    signal.signal(signal.SIGTERM, _terminated)
    try:
        command = tyro.cli(
            COMMANDS[name].load(),
            prog=f"recall {name}",
            args=rest,
            config=(tyro.conf.FlagCreatePairsOff,),
        )
        return command.run()
    except Mistake as mistake:
        errors(str(mistake))
        return 2
    except KeyboardInterrupt:
        errors("stopped; what was finished is kept, and the same command goes on from there")
        return 130
    except _Terminated:
        errors("terminated; what was finished is kept, and the same command goes on from there")
        return 143


class _Terminated(BaseException):
    """SIGTERM arrived."""


def _terminated(number: int, frame: FrameType | None) -> None:
    raise _Terminated


def entry() -> None:
    """What the installed command calls."""
    sys.exit(main(sys.argv[1:]))
