"""Flags that several commands share; `recall runs ls` needs nothing that takes long to import."""

from pathlib import Path
from typing import Annotated

import tyro

StoreFolder = Annotated[Path, tyro.conf.arg(help="the folder of the records")]
Out = Annotated[Path, tyro.conf.arg(help="the folder of the report")]
StudyName = Annotated[
    str, tyro.conf.Positional, tyro.conf.arg(help="one that `recall study ls` lists")
]
Scale = Annotated[str, tyro.conf.arg(help="how much is spent; `recall study ls` lists the scales")]
Parts = Annotated[
    tuple[int, ...], tyro.conf.arg(help="only these problems of the study, such as 1 3")
]
Seeds = Annotated[int | None, tyro.conf.arg(help="seeds a setting; the default is the scale's")]
Address = Annotated[
    str, tyro.conf.Positional, tyro.conf.arg(help="the beginning of the record's address")
]
Where = Annotated[
    str, tyro.conf.arg(help="only runs such as \"task.queries == 16 and model == 'mamba'\"")
]
Json = Annotated[bool, tyro.conf.arg(help="print the result as JSON")]
DryRun = Annotated[bool, tyro.conf.arg(help="say what would run, and run nothing")]
Quiet = Annotated[bool, tyro.conf.arg(aliases=["-q"], help="no progress")]
Verbose = Annotated[bool, tyro.conf.arg(aliases=["-v"], help="name every run at the start")]
