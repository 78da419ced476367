"""`recall runs save`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from recall_arena.cli import options
from recall_arena.cli.command import Command, Mistake
from recall_arena.cli.console import say
from recall_arena.cli.trained import run_named, trained_model
from recall_arena.layouts import save_pretrained


@dataclass(frozen=True)
class RunsSave(Command):
    """Write a trained model as a folder that transformers or mamba-ssm loads."""

    address: options.Address
    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(help="where to write it")]
    layout: Annotated[
        Literal["transformers", "mamba-ssm"],
        tyro.conf.arg(
            help="transformers takes stacks of Mamba with norm=rms, mamba-ssm attention as well"
        ),
    ] = "transformers"
    imports: options.Imports = ()
    store: options.StoreFolder = Path("runs")

    def run(self) -> int:
        run, record = run_named(self.store, self.address)
        model = trained_model(self.store, run, record)
        try:
            save_pretrained(model, self.folder, self.layout)
        except ValueError as error:
            raise Mistake(f"layout {self.layout}: {error}") from None
        say(f"{self.folder} holds {run.address} in the layout {self.layout}")
        return 0
