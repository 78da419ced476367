"""What a run is described by: frozen dataclasses whose values are checked and made plain.

A run's address is a hash of its description as JSON, so equal descriptions are written alike:
a numpy integer becomes an int, a list a tuple, an int in a float's place a float.  Whatever
else is not of the annotated type is refused: 1e3 or True for an int, a string for a tuple of
strings, a number that is not finite, a field that does not exist.
"""

import dataclasses
import functools
import inspect
import json
from typing import Any, TypeVar, dataclass_transform

import numpy as np
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic import dataclasses as checked

T = TypeVar("T")


def added(*, default: T) -> T:
    """A field added after records were published.

    `as_json` and `repr` leave it out while it has its default, so earlier records keep their
    addresses, and held-out sequences, which are seeded by the task's `repr`, stay the same.
    """
    field: Any = dataclasses.field(default=default, metadata={"added": True})
    return field


def as_json(value: Any) -> Any:
    """The fields of a frozen class as JSON values, which `read` reads back."""
    if isinstance(value, tuple):
        return [as_json(each) for each in value]
    if not dataclasses.is_dataclass(value):
        return value
    fields = [(field, getattr(value, field.name)) for field in dataclasses.fields(value)]
    return {
        field.name: as_json(own)
        for field, own in fields
        if own != field.default or "added" not in field.metadata
    }


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field, added))
def frozen(cls: type[T]) -> type[T]:
    """A frozen dataclass that raises ValueError, in one line, for a value of another type.

    A field's own rule is stated in `__post_init__`, which raises ValueError and names the field;
    a number that may be infinite is an `Annotated[float, AllowInfNan()]`.
    """
    config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
    tells_itself = "__repr__" in vars(cls)
    made: Any = checked.dataclass(frozen=True, config=config)(cls)
    init, signature = made.__init__, inspect.signature(made)

    @functools.wraps(init)
    def init_plainly(self: object, *values: object, **named: object) -> None:
        fields = signature.bind(*values, **named).arguments
        try:
            init(self, **{name: _plain(value) for name, value in fields.items()})
        except ValidationError as error:
            raise ValueError(mistakes_in(error)) from None

    made.__init__ = init_plainly
    if not tells_itself:
        made.__repr__ = _told
    return made


def _told(self: Any) -> str:
    """A dataclass's repr, without `added` fields that have their defaults."""
    fields = [(field, getattr(self, field.name)) for field in dataclasses.fields(self)]
    shown = [
        f"{field.name}={value!r}"
        for field, value in fields
        if field.repr and (value != field.default or "added" not in field.metadata)
    ]
    return f"{type(self).__qualname__}({', '.join(shown)})"


def has_defaults(cls: type) -> bool:
    """Whether this is a class of `frozen`, itself and not by a parent, that can be made of nothing.

    Only then does its name alone stand for one value.
    """
    if not checked.is_pydantic_dataclass(cls) or inspect.isabstract(cls):
        return False
    parameters = inspect.signature(cls).parameters.values()
    return all(parameter.default is not parameter.empty for parameter in parameters)


def read(cls: type[T], values: dict[str, Any]) -> T:
    """The value of a frozen class from its fields as JSON values; ValueError for any other."""
    try:
        return TypeAdapter(cls).validate_json(json.dumps(values))
    except ValidationError as error:
        raise ValueError(mistakes_in(error)) from None


def mistakes_in(error: ValidationError) -> str:
    """Each mistake as "field: what it should be, got this", with semicolons between them."""
    return "; ".join(_mistake(details) for details in error.errors())


def _mistake(details: Any) -> str:
    if details["type"] == "value_error":  # from a __post_init__, which names the field
        return str(details["ctx"]["error"])
    field = ".".join(map(str, details["loc"]))
    message = details["msg"].removeprefix("Input ")
    got = "" if details["type"] == "missing" else f", got {details['input']!r}"
    return f"{field}: {message[0].lower()}{message[1:]}{got}"


def _plain(value: object) -> object:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, list | tuple):
        return tuple(map(_plain, value))
    return value
