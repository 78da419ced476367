"""The command `recall`.  Only this package prints.

Each command is a frozen dataclass whose fields are its flags and whose `run` gives the exit
code: 0; 1 if a run failed or a record cannot be read; 2 for a mistake in what was typed; 130 or
143 after a clean stop; 141 where whoever read the output is gone.
"""

import os
import signal
import sys
from collections.abc import Sequence
from io import TextIOWrapper
from typing import cast

from recall_arena.cli.stopping import end_at_once, handled_by


def main(arguments: Sequence[str]) -> int:
    """Run the command that the arguments spell, and return its exit code."""
    with handled_by(end_at_once):  # a signal ends it without a traceback from here on
        from recall_arena.cli.commands import call
        from recall_arena.cli.console import errors

        try:
            return call(list(arguments))
        except BrokenPipeError:  # who read the output has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 128 + signal.SIGPIPE
        except OSError as error:  # standard output on a full disk
            errors(str(error))
            return 2


def entry() -> None:
    """What the installed command calls."""
    for stream in (sys.stdout, sys.stderr):  # a terminal that has no Greek letters shows others
        cast(TextIOWrapper, stream).reconfigure(errors="replace")
    code = main(sys.argv[1:])
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # an exception at exit would show a traceback
    sys.exit(code)
