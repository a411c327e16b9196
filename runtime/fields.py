"""Typed access to a JSON object read from outside: each miss is an error that names file, key and value."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from .errors import ArtifactError

_MAX_DEPTH = 64
_MAX_DIGITS = 400  # a float64 has 309 before the point


def read_object(data: bytes, *, where: str) -> dict[str, Any]:
    """Read a JSON object as strictly as docs/artifact.md has it.

    Args:
        data: content of the file.
        where: its path, for the error texts.

    Raises:
        ArtifactError: not UTF-8, not JSON, no object, a key twice, NaN or infinity, a whole number of more than 400
            digits, or nested more than 64 deep.
    """
    try:
        found = json.loads(
            data.decode("utf-8"), object_pairs_hook=_unique_keys, parse_constant=_no_constant, parse_int=_short_integer
        )
        _refuse_depth(found)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{where}: expected JSON, got {error}; the file is damaged, export again") from None
    if not isinstance(found, dict):
        raise ArtifactError(f"{where}: expected a JSON object, got {type(found).__name__}; export again")
    return found


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key that stands twice in one object")
    return found


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"the number {text}")


def _short_integer(text: str) -> int:
    # Python 3.10's first releases would take minutes for millions of digits.
    if len(text) > _MAX_DIGITS:
        raise ValueError(f"a number of more than {_MAX_DIGITS} digits")
    return int(text)


def _refuse_depth(value: Any) -> None:
    """What walks over a value later may do so by recursion."""
    level = [value]
    for _ in range(_MAX_DEPTH):
        inner = [item for item in level if isinstance(item, (dict, list))]
        if not inner:
            return
        level = [item for outer in inner for item in (outer.values() if isinstance(outer, dict) else outer)]
    raise ValueError(f"lists or objects more than {_MAX_DEPTH} deep")


class Fields:
    """Typed access to the keys of one JSON object; each miss is an ArtifactError that names the key."""

    def __init__(self, raw: Mapping[str, Any], where: str) -> None:
        self.raw, self.where = raw, where

    def get(self, key: str) -> Any:
        """The value of a key, of any type."""
        if key not in self.raw:
            raise ArtifactError(f"{self.where}: expected the key '{key}', found none; export again")
        return self.raw[key]

    def fail(self, key: str, expected: str) -> NoReturn:
        """Refuse the value of a key that is there."""
        raise ArtifactError(f"{self.where}: expected '{key}' to be {expected}, got {show(self.raw[key])}; export again")

    def _want(self, key: str, expected: str, test: Callable[[Any], bool]) -> Any:
        value = self.get(key)
        if not test(value):
            self.fail(key, expected)
        return value

    def string(self, key: str) -> str:
        """A text of 1 to 1024 characters that can be printed: no line ends, no escapes, no half characters."""
        value: str = self._want(
            key, "a text of 1 to 1024 printable characters", lambda v: isinstance(v, str) and printable(v)
        )
        return value

    def one_of(self, key: str, choices: tuple[str, ...]) -> str:
        """One of some texts."""
        value: str = self._want(key, " or ".join(map(repr, choices)), lambda v: isinstance(v, str) and v in choices)
        return value

    def matching(self, key: str, pattern: re.Pattern[str], expected: str) -> str:
        """A text that matches a pattern."""
        value: str = self._want(key, expected, lambda v: isinstance(v, str) and pattern.fullmatch(v) is not None)
        return value

    def integer(self, key: str, *, low: int, high: int = 1 << 53) -> int:
        """A whole number within bounds."""
        value: int = self._want(
            key, f"a whole number from {low} to {high}", lambda v: is_integer(v) and low <= v <= high
        )
        return value

    def number(self, key: str, *, low: float, high: float) -> float:
        """A finite number within bounds."""
        return float(self._want(key, f"a number from {low:g} to {high:g}", lambda v: is_number(v) and low <= v <= high))

    def items(self, key: str) -> list[Any]:
        """A list."""
        value: list[Any] = self._want(key, "a list", lambda v: isinstance(v, list))
        return value

    def strings(self, key: str) -> list[str]:
        """A list of texts."""
        value: list[str] = self._want(
            key, "a list of texts", lambda v: isinstance(v, list) and all(isinstance(x, str) for x in v)
        )
        return value

    def mapping(self, key: str) -> dict[str, Any]:
        """An object."""
        value: dict[str, Any] = self._want(key, "an object", lambda v: isinstance(v, dict))
        return value


def is_integer(value: Any) -> bool:
    """Whether a JSON value is a whole number; true and false are none."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Whether a JSON value is a finite number."""
    return is_integer(value) or (isinstance(value, float) and math.isfinite(value))


def printable(text: str) -> bool:
    """Whether a text of at most 1024 characters may stand as it is in one line of a terminal."""
    return 0 < len(text) <= 1024 and text.isprintable()


def plain(text: str) -> str:
    """A text from outside for an error text or a table: as it is when printable, else with escapes."""
    return text if text.isprintable() else ascii(text)


def show(value: Any) -> str:
    """A value for an error text, cut when long."""
    try:
        text = repr(value)
    except ValueError:  # Python refuses to write out a whole number of thousands of digits
        text = f"{type(value).__name__} of thousands of digits"
    return text if len(text) <= 120 else text[:117] + "..."
