"""Errors a caller of the runtime can cause. Text: `<where>: expected <what>, got <value>; <remedy>`."""

from __future__ import annotations


class FcastError(Exception):
    """Root of every error that the runtime raises on purpose."""

    exit_code = 1


class ArtifactError(FcastError, ValueError):
    """An artifact is missing, damaged, altered, hostile or of a newer schema."""


class InputError(FcastError, ValueError):
    """A call's argument has the wrong type, shape or value; the object is as it was before the call."""


class DeviceError(FcastError, OSError):
    """The device asked for cannot run the model here."""


class MissingDependencyError(FcastError, ImportError):
    """A library that the call needs is not installed; the text holds the command that installs it."""
