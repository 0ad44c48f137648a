"""
Fills dataclasses from mappings, as a YAML file holds them. An unknown key is an error.

Values are checked by the types and bounds declared with the keys. Pydantic's dataclasses do not fit: strict mode
rejects a mapping for a section, lax mode accepts text for a number, and their messages would need rewriting anyway.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable
from contextlib import suppress
from types import UnionType
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

from ..errors import RecipeError

T = TypeVar("T")


class Bound(NamedTuple):
    """A condition on a value, in words and as a function."""

    said: str
    holds: Callable[[Any], bool]


Count = Annotated[int, Bound("at least 1", lambda value: value >= 1)]
Number = Annotated[int, Bound("at least 0", lambda value: value >= 0)]
NotNegative = Annotated[float, Bound("at least 0", lambda value: value >= 0)]
Positive = Annotated[float, Bound("positive", lambda value: value > 0)]
Share = Annotated[float, Bound("between 0 and 1", lambda value: 0 < value < 1)]


def fill(kind: type[T], content: dict[str, Any], prefix: str) -> T:
    """Builds a dataclass from a mapping, section by section."""
    types = get_type_hints(kind, include_extras=True)
    values = {}
    for key, value in content.items():
        if key not in types:
            near = difflib.get_close_matches(str(key), types, n=1)
            hint = f"did you mean {prefix}{near[0]}?" if near else f"choose one of {', '.join(types)}."
            raise RecipeError(f"{prefix}{key}: recipes have no such key; {hint}")
        values[key] = _read(types[key], value, f"{prefix}{key}")
    for one in dataclasses.fields(kind):  # type: ignore[arg-type]
        if one.name not in values and one.default is one.default_factory is dataclasses.MISSING:
            raise RecipeError(f"{prefix}{one.name}: missing: set it.")
    return kind(**values)


def _read(kind: Any, value: Any, key: str) -> Any:
    """Returns the value of a key: a section, named sections (a mapping of names to sections), or a plain value."""
    if get_origin(kind) is dict and dataclasses.is_dataclass(get_args(kind)[1]) and isinstance(value, dict):
        return {str(name): _read(get_args(kind)[1], one or {}, f"{key}.{name}") for name, one in value.items()}
    section: Any = next((one for one in _kinds(kind) if dataclasses.is_dataclass(one)), None)
    if section is not None and isinstance(value, dict):
        return fill(section, value, f"{key}.")
    return _typed(kind, value, key)


def _kinds(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)


def _typed(kind: Any, value: Any, key: str) -> Any:
    """Returns the value as `kind`. YAML reads 1e-4 as text, `no` as false, and 1 as an integer even for a float."""
    kinds = _kinds(kind)
    for one in kinds:
        one, *bounds = get_args(one) if get_origin(one) is Annotated else (one,)
        plain = get_origin(one) or one
        if value is False and plain in (str, Literal):
            value = "no"
        if plain is float and isinstance(value, (int, float, str)) and not isinstance(value, bool):
            with suppress(ValueError):
                value = float(value)
        if plain is Literal:
            fits = value in get_args(one)
        else:
            fits = isinstance(value, plain) and not (plain is int and isinstance(value, bool))
        if fits:
            for bound in bounds:
                if not bound.holds(value):
                    raise RecipeError(f"{key}: must be {bound.said}, got {value}.")
            return value
    choices = [choice for one in kinds if get_origin(one) is Literal for choice in get_args(one)]
    if choices:
        raise RecipeError(f"{key}: must be one of {', '.join(choices)}, got {value!r}.")
    raise RecipeError(f"{key}: must be {' or '.join(map(_named, kinds))}, got {value!r}.")


def _named(kind: Any) -> str:
    """Returns a type's name for messages."""
    kind = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    if dataclasses.is_dataclass(kind):
        return "a section of keys"
    return "null" if kind is type(None) else getattr(kind, "__name__", str(kind))
