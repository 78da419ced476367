"""`recall plot`."""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import polars as pl
import tyro

from recall_arena.canvas import CANVASES, groups, write
from recall_arena.cli import options, stores
from recall_arena.cli.command import Command, Mistake
from recall_arena.cli.console import say, say_json
from recall_arena.cli.listing import listed
from recall_arena.index import Contents, contents_of, contents_of_files, together
from recall_arena.names import unknown
from recall_arena.plots import ALONG, VALUES, Axes2D, plot, points_of

LONGEST = 60


@dataclass(frozen=True)
class Plot(Command):
    """Draw any records: runs that differ in nothing that is drawn thin, their median bold.

    A column is one of those that `recall runs ls --json` has, such as d, rate, steps_99 or
    task.queries.  What cannot be read is named, and the code then is 1.
    """

    sources: Annotated[
        tuple[Path, ...],
        tyro.conf.Positional,
        tyro.conf.arg(help="folders of records, and archives; the folder runs if there are none"),
    ] = ()
    x: Annotated[
        str,
        tyro.conf.arg(help="context, iterations, or a column; then a run is a point"),
    ] = "context"
    y: Annotated[
        str,
        tyro.conf.arg(help=f"along context or iterations one of {', '.join(VALUES)}; or a column"),
    ] = "accuracy"
    colour: Annotated[
        str, tyro.conf.arg(help="the column whose values have a colour and a marker each")
    ] = "model"
    style: Annotated[
        str | None, tyro.conf.arg(help="the column whose values have a line style each")
    ] = None
    panels: Annotated[
        tuple[str, ...],
        tyro.conf.UseAppendAction,
        tyro.conf.arg(help="the column whose values have a panel each; may be repeated"),
    ] = ()
    files: Annotated[str | None, tyro.conf.arg(help="the column whose values have a file each")] = (
        None
    )
    where: options.Where = ""
    out: Annotated[Path, tyro.conf.arg(help="the file to write, .svg, .png or .pdf")] = Path(
        "plot.svg"
    )
    imports: options.Imports = ()
    json: options.Json = False

    def run(self) -> int:
        if self.out.suffix not in CANVASES or self.out.is_dir():
            raise Mistake(f"--out must end in one of {', '.join(CANVASES)}, got {self.out}")
        contents = self._contents()
        runs = listed(contents, self.where)
        axes = self._axes(runs)
        if runs.is_empty():
            raise Mistake(f"no {'such ' * bool(self.where)}records in {self._said()}")
        stores.prepare(self.out.parent)
        paths = []
        for path, own in self._by_file(runs):
            points = points_of(own, contents.frame, axes)
            if points.is_empty():
                raise Mistake(f"no run of {path.name} has both {axes.x} and {axes.y}")
            try:
                figure = plot(points, axes)
            except ValueError as error:
                raise Mistake(f"--style: {error}") from None
            write(figure, path)
            paths.append(str(path))
        if self.json:
            say_json({"files": paths})
        for line in () if self.json else paths:
            say(line)
        return stores.tell_damaged(contents.damaged)

    def _contents(self) -> Contents:
        """All records of all sources; raises Mistake for what is neither a folder nor a file."""
        files = [path for path in self.sources if path.is_file()]
        folders = [path for path in self.sources or [Path("runs")] if path not in files]
        found = [contents_of(stores.opened(folder)) for folder in folders]
        return together([*found, contents_of_files(files)])

    def _said(self) -> str:
        return ", ".join(map(str, self.sources or [Path("runs")]))

    def _axes(self, runs: pl.DataFrame) -> Axes2D:
        """The columns; raises Mistake, with the nearest, for one that there is not."""
        columns = runs.columns
        for name, given in (
            *(("--colour", self.colour), ("--style", self.style), ("--files", self.files)),
            *(("--panels", panel) for panel in self.panels),
        ):
            if given is not None and given not in columns:
                raise Mistake(f"{name}: {unknown('column', given, columns)}")
        if self.x not in (*ALONG, *columns):
            raise Mistake(f"--x: {unknown('column', self.x, (*ALONG, *columns))}")
        numbers = [n for n, kind in runs.schema.items() if kind.is_numeric() or not runs.height]
        allowed = list(VALUES) if self.x in ALONG else numbers
        if self.y not in allowed:
            raise Mistake(f"--y: {unknown(f'number along {self.x}', self.y, allowed)}")
        return Axes2D(self.x, self.y, self.colour, self.style, self.panels)

    def _by_file(self, runs: pl.DataFrame) -> Iterator[tuple[Path, pl.DataFrame]]:
        if self.files is None:
            yield self.out, runs
            return
        for (value,), own in groups(runs, [self.files]):
            yield self.out.with_stem(f"{self.out.stem}-{file_stem(str(value))}"), own


def file_stem(name: str) -> str:
    """A name as a part of a file's name: no two names have the same, whatever they contain.

    What a file's name cannot hold everywhere is replaced; a hash of the name then tells it apart.
    """
    plain = re.sub(r"[^a-z0-9_=.]+", "-", name.lower()).strip("-.")[:LONGEST]
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return plain if plain == name else "-".join(filter(None, (plain, digest)))
