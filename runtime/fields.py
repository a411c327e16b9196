"""Typed access to a JSON object read from outside: each miss is an error that names file, key and value."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from .errors import ArtifactError


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
        """A text of 1 to 1024 characters."""
        value: str = self._want(key, "a text", lambda v: isinstance(v, str) and 0 < len(v) <= 1024)
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


def show(value: Any) -> str:
    """A value for an error text, cut when long."""
    try:
        text = repr(value)
    except ValueError:  # Python refuses to write out a whole number of thousands of digits
        text = f"{type(value).__name__} of thousands of digits"
    return text if len(text) <= 120 else text[:117] + "..."
