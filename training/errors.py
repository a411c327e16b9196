"""Errors a user can cause on the training side. Text: `<where>: expected <what>, got <value>; <remedy>`."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class TrainingError(Exception):
    """Root of every error raised on purpose by `training` and `export`."""

    exit_code = 1


class TraceError(TrainingError, ValueError):
    """A trace file is missing, malformed, empty or too short."""


class ConfigError(TrainingError, ValueError):
    """An option, a name or a combination of them is not known or not possible."""

    exit_code = 2


class DeviceError(TrainingError, OSError):
    """The device asked for is not there."""


class CheckpointError(TrainingError, ValueError):
    """A checkpoint is missing, damaged or of another schema."""


def nearest(name: str, known: Iterable[str]) -> str:
    """The remedy for an unknown name: the nearest known one, then all of them."""
    choices = sorted(known)
    close = difflib.get_close_matches(name, choices, n=1, cutoff=0.5)
    return (f"did you mean '{close[0]}'? " if close else "") + "known: " + ", ".join(choices)
