"""Settings from TOML: typed dataclasses out of parsed tables, unknown keys refused."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from geocd.errors import ConfigError

T = TypeVar("T")


def config_from(cls: type[T], table: Mapping[str, Any], where: str) -> T:
    """A dataclass of settings from a table of TOML, with its sub-tables.

    Args:
        cls: dataclass whose fields are numbers, texts, literals, tuples or such dataclasses.
        table: parsed TOML.
        where: what errors call the table.

    Raises:
        ConfigError: an unknown key, a value of another type, or one that ``cls`` refuses.
    """
    hints = typing.get_type_hints(cls)
    unknown = sorted(set(table) - set(hints))
    if unknown:
        raise ConfigError(
            f"{where}: unknown {', '.join(unknown)}; known are {', '.join(sorted(hints))}"
        )
    values = {key: _value(hints[key], value, f"{where}: {key}") for key, value in table.items()}
    try:
        return cls(**values)
    except TypeError as error:
        raise ConfigError(f"{where}: {error}") from None
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


def _value(hint: Any, value: Any, where: str) -> Any:
    """A value of TOML as a field wants it."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        # None is the default of such a field and cannot be written in TOML.
        return _value(next(a for a in arguments if a is not type(None)), value, where)
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise ConfigError(f"{where} must be a table, got {value!r}")
        return config_from(typing.cast(type, hint), value, where)
    if origin is tuple:
        if not isinstance(value, list):
            raise ConfigError(f"{where} must be a list, got {value!r}")
        if arguments[-1] is not ... and len(value) != len(arguments):
            raise ConfigError(f"{where} must have {len(arguments)} values, got {value!r}")
        return tuple(_value(arguments[0], entry, where) for entry in value)
    if origin is Literal and value not in arguments:
        raise ConfigError(f"{where} must be one of {', '.join(arguments)}, got {value!r}")
    if hint in (int, float) and type(value) not in (int, hint):
        raise ConfigError(f"{where} must be a number, got {value!r}")
    if hint is str and not isinstance(value, str):
        raise ConfigError(f"{where} must be text, got {value!r}")
    return value
