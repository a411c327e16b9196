"""Errors of an export. Text: `<where>: expected <what>, got <value>; <remedy>`."""

from __future__ import annotations

from training.errors import TrainingError


class ExportError(TrainingError):
    """An artifact could not be made or published; nothing was left behind."""


class ParityError(ExportError):
    """An exported graph does not give the trained model's forecasts."""


class StorageError(ExportError):
    """The disk is full, or the folder cannot be written."""
