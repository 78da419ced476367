"""`recall check-mixer`."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pkgutil import resolve_name
from typing import Annotated

import torch
import tyro
from torch import nn

from recall_arena.battery import PROPERTIES, Broken, Property, name_of
from recall_arena.cli import options
from recall_arena.cli.command import Command, Mistake
from recall_arena.cli.console import say, say_json
from recall_arena.cli.importing import import_from_here
from recall_arena.config import has_defaults
from recall_arena.executors.here import FAILURES
from recall_arena.mixers import MixerOptions
from recall_arena.mixers.text import read_mixer

WIDTHS = (2, 8)
"""The narrower one tells most about a state: more tokens have as many numbers."""


@dataclass(frozen=True)
class Finding:
    """Whether a property holds, and what was measured: at the width that fails, or at all."""

    property: str
    holds: bool
    measured: str


@dataclass(frozen=True)
class CheckMixer(Command):
    """Hold a mixer against what every mixer promises; the code is 1 if a property fails.

    Measured at widths 2 and 8, or at that of them which the mixer can have: causality, any
    length, no mixing across the batch, equal bits each time, the last position, the state,
    gradients, float32 against float64.
    """

    mixer: Annotated[
        str,
        tyro.conf.Positional,
        tyro.conf.arg(
            help="my.module:MyMixer, a class of options or an nn.Module made by its width; or a "
            "mixer in words, such as 'mamba(state=4)'"
        ),
    ]
    imports: options.Imports = ()
    json: options.Json = False

    def run(self) -> int:
        torch.set_num_threads(1)
        mixers = _at_widths(_builder(self.mixer))
        findings = []
        for finding in (_finding(holds, mixers) for holds in PROPERTIES):
            findings.append(finding)
            if not self.json:
                mark = "ok     " if finding.holds else "FAILED "
                say(f"{mark}{finding.property}: {finding.measured}")
        if self.json:
            say_json([asdict(finding) for finding in findings])
        return 0 if all(finding.holds for finding in findings) else 1


def _builder(words: str) -> Callable[[int], nn.Module]:
    """What makes the mixer of a width; raises Mistake where the words name none."""
    module, colon, name = words.partition(":")
    if not colon:
        try:
            return read_mixer(words).build
        except ValueError as error:
            raise Mistake(f"{error}; or give my.module:MyMixer") from None
    import_from_here(module)
    try:
        found = resolve_name(words)
    except (AttributeError, ValueError) as error:
        raise Mistake(f"{words!r} names nothing: {error}") from None
    if isinstance(found, MixerOptions):
        return found.build
    if isinstance(found, type) and issubclass(found, MixerOptions):
        if not has_defaults(found):
            raise Mistake(
                f"{name} must be decorated with recall_arena.config.frozen, define build, and have "
                "a default for every option"
            )
        return found().build
    if isinstance(found, type) and issubclass(found, nn.Module):
        return found
    raise Mistake(f"{words!r} is neither a class of MixerOptions nor one of nn.Module")


def _at_widths(build: Callable[[int], nn.Module]) -> dict[int, nn.Module]:
    """The mixer at those widths that it can have, in float64; raises Mistake if it has none."""
    mixers, refusals = {}, []
    for width in WIDTHS:
        torch.manual_seed(0)
        try:
            mixers[width] = build(width).double()
        except (TypeError, ValueError) as error:
            refusals.append(f"width {width}: {error}")
    if not mixers:
        raise Mistake(f"the mixer cannot be built: {'; '.join(refusals)}")
    return mixers


def _finding(holds: Property, mixers: dict[int, nn.Module]) -> Finding:
    measured = []
    for width, mixer in mixers.items():
        try:
            measured.append(holds(mixer, width))
        except Broken as broken:
            return Finding(name_of(holds), False, f"at width {width}, {broken}")
        except FAILURES as error:
            kind = type(error).__name__
            return Finding(name_of(holds), False, f"at width {width}, {kind}: {error}")
    return Finding(name_of(holds), True, "; ".join(dict.fromkeys(measured)))
