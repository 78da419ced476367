"""`recall models`."""

import dataclasses
from dataclasses import dataclass

from recall_arena.cli import options
from recall_arena.cli.command import Command
from recall_arena.cli.console import errors, say, say_json, say_table
from recall_arena.cli.explained import fields_of
from recall_arena.mixers import MIXERS
from recall_arena.spec import ModelSpec
from recall_arena.zoo import SETTINGS, ZOO


@dataclass(frozen=True)
class Models(Command):
    """The models and mixers that --model takes, and all options of each.

    Those of other packages are among them; the code is 1 if one of these cannot be used.
    """

    imports: options.Imports = ()
    json: options.Json = False

    def run(self) -> int:
        models = {name: ", ".join(known.layers) for name, known in ZOO.items()}
        unusable = _load_all()
        kinds = {type(mixer): mixer for mixer in MIXERS.values()}
        chosen = {
            name: {f: v for f, v in dataclasses.asdict(mixer).items() if v != usual[f]}
            for name, mixer in MIXERS.items()
            for usual in [dataclasses.asdict(type(mixer)())]
        }
        explained = {kind.__name__: fields_of(kind) for kind in kinds}
        settings = {name: row for name, row in fields_of(ModelSpec).items() if name in SETTINGS}
        if self.json:
            say_json({"models": models, "mixers": chosen, **explained, "settings": settings})
            return unusable
        say_table(("model", "layers"), models.items(), "Models by name")
        named = ((name, type(MIXERS[name]).__name__, _said(chosen[name])) for name in MIXERS)
        say_table(("mixer", "kind", "where it differs"), named, "\nMixers")
        for kind, fields in explained.items():
            rows = ((name, *row) for name, row in fields.items())
            say_table(("option", "default", "what it is"), rows, f"\nOptions of {kind}")
        rows = ((name, *row) for name, row in settings.items())
        say_table(("setting", "default", "what it is"), rows, "\nSettings of a model")
        say()
        say("A stack of mixers is a model too, options in brackets, settings behind semicolons:")
        say('  --model "mamba(state=32, window=1), attention-rope(heads=2); norm=rms; mlp=gelu"')
        return unusable


def _load_all() -> int:
    """Load the mixers of other packages too; 1 if one cannot be used, which is named."""
    code = 0
    for name in MIXERS.names():
        try:
            MIXERS.find(name)
        except ValueError as error:
            errors(str(error))
            code = 1
    return code


def _said(options: dict[str, object]) -> str:
    return ", ".join(f"{name}={value}" for name, value in options.items())
