"""What the docstring of a class of options says of each field."""

import dataclasses
from typing import Literal, get_args, get_origin, get_type_hints

from docstring_parser import parse


def fields_of(kind: type) -> dict[str, tuple[object, str]]:
    """Of each documented field its default, what its docstring says of it, and what is allowed."""
    parameters = parse(kind.__doc__ or "").params
    said = {each.arg_name: (each.description or "").split() for each in parameters}
    allowed = {name: _allowed(hint) for name, hint in get_type_hints(kind).items()}
    fields = [field for field in dataclasses.fields(kind) if field.name in said]
    return {f.name: (f.default, " ".join([*said[f.name], *allowed[f.name]])) for f in fields}


def _allowed(hint: object) -> list[str]:
    """The names that a field may have, if they are listed."""
    return [f"({' | '.join(map(str, get_args(hint)))})"] if get_origin(hint) is Literal else []
