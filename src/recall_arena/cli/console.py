"""Where words for people go: results to standard output, news and errors to standard error."""

import json
import math
import re
import sys
from collections.abc import Iterable, Mapping, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from recall_arena import __version__

MANY = 200
NARROWEST = 40
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class _Console(Console):
    """One whose reader may go: that is a BrokenPipeError, as anywhere else."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


out = _Console(highlight=False, soft_wrap=True)
news = _Console(stderr=True, highlight=False, soft_wrap=True)


def plain(text: str) -> str:
    """Text that a terminal only shows: names of files may hold what would move its cursor."""
    return _CONTROLS.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def one_line(text: str) -> str:
    """The same on one line."""
    return plain(text).replace("\n", "\\n")


def say(text: str = "") -> None:
    """A line of a result."""
    out.print(Text(plain(text)))


def tell(text: str) -> None:
    """A line of news."""
    news.print(Text(plain(text)))


def errors(text: str) -> None:
    """A line about what went wrong."""
    news.print(Text.assemble(("recall: ", "bold red"), one_line(text)))


def ask(question: str) -> bool:
    """Whether the answer, a line of standard input, is yes; there may be none."""
    news.print(Text(f"{question} [y/N] "), end="")
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def say_json(value: object) -> None:
    """A result for programs: standard JSON, in which a number that is not finite is null."""
    text = json.dumps(_finite(value), indent=2, ensure_ascii=False, allow_nan=False)
    out.print(text, markup=False)


def _finite(value: object) -> object:
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def say_version() -> None:
    """The package's version."""
    say(f"recall-arena {__version__}")


def say_table(columns: Sequence[str], rows: Iterable[Sequence[object]], title: str = "") -> None:
    """A table, on a terminal as narrow as it can be; long cells are folded there, never cut.

    None is where programs read, nor of very many rows, whose widths would take rich long to weigh.
    """
    cells = [[one_line(str(cell)) for cell in row] for row in rows]
    if len(cells) > MANY or not sys.stdout.isatty():
        _say_unfolded([*columns], cells, title)
        return
    table = Table(
        title=title or None, title_justify="left", box=None, pad_edge=False, padding=(0, 1, 0, 0)
    )
    for column in columns:
        whole = column == "address"  # for it is copied from here
        table.add_column(column, overflow="fold", no_wrap=whole, header_style="bold")
    for row in cells:
        table.add_row(*map(Text, row))
    _Console(highlight=False, width=max(NARROWEST, out.width)).print(table)


def _say_unfolded(columns: list[str], cells: list[list[str]], title: str) -> None:
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    for line in (*([[title]] if title else []), columns, *cells):
        out.out(" ".join(map(str.ljust, line, widths)).rstrip(), highlight=False)


def show_help(commands: Mapping[str, str], group: str = "") -> None:
    """What `recall --help` prints, or with a group, such as "runs ", what its help does."""
    say(f"usage: recall {group or 'COMMAND '}{'COMMAND ' if group else ''}[--help] ...")
    say()
    if not group:
        say("Which sequence mixers can recall: attention, state spaces, or hybrids of both?")
        say()
    for name, about in commands.items():
        say(f"  {name:<18} {about}")
    say()
    if not group:
        say("`recall study run assignment` trains everything and writes the report.")
    say("`recall COMMAND --help` explains a command; `recall --version` says which one this is.")
    say()
    say("Exit codes: 0; 1 if a run failed or a record cannot be read; 2 for a mistake in what was")
    say("typed; 130 and 143 after Ctrl-C and SIGTERM, with what was done kept.")
