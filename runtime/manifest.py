"""What an artifact says about itself: manifest.json, schema 1, checked key by key before anything is loaded.

`docs/artifact.md` is the specification; the checks here are its refusals.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import ArtifactError
from .fields import Fields, is_integer, is_number, read_object, show

if TYPE_CHECKING:
    from numpy.typing import NDArray

SCHEMA = 1
MAX_BYTES = 4 << 20
CHANNELS = {
    "requests": (("inter_arrival_s", "request_tokens", "response_tokens"),),
    "load": (("requests", "request_tokens", "response_tokens"), ("requests",)),
}
UNITS = {
    "inter_arrival_s": "s",
    "requests": "requests",
    "request_tokens": "tokens",
    "response_tokens": "tokens",
}

OUTPUTS = {"requests": (("forecast",),), "load": (("forecast",), ("forecast", "demand"))}

STEP = "step.onnx"
"""The graph of a stateful model, beside model.onnx."""
MAX_STATE = 1 << 16

# No forecaster of request traffic comes near these; a manifest beyond them would make the runtime allocate at will.
_MAX_STEPS = 1 << 20
_MAX_LEVELS = 256
_MAX_ELEMENTS = 1 << 24
_MAX_FILES, _MAX_FILES_BYTES = 64, 1 << 31
_MIN_BIN_S, _MAX_TIME_S = 1e-3, 1e12

_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_STATE_NAME = re.compile(r"(?!next_|(context|time_s|forecast|demand)\Z)[a-z][a-z0-9_]{0,31}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file of an artifact as its manifest declares it."""

    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Manifest:
    """The keys of manifest.json that the runtime acts on, typed; `raw` holds all of them, read-only."""

    name: str
    version: int
    kind: str
    """`requests` (one step per request) or `load` (one step per bin)."""
    channels: tuple[str, ...]
    units: tuple[str, ...]
    clock: str
    """`epoch` or `relative`: what the time_s of this model counts from."""
    bin_s: float | None
    """Width of a context bin; None for `requests`."""
    step_s: float | None
    """Width of a forecast step, a whole multiple of bin_s; None for `requests`."""
    gap_s: float
    """A silence longer than this is missing data."""
    context: int
    """L, steps."""
    horizon: int
    """H, steps."""
    levels: tuple[float, ...]
    inputs: tuple[str, ...]
    """`("context",)` or `("context", "time_s")`."""
    outputs: tuple[str, ...]
    """`("forecast",)`, for `load` also `("forecast", "demand")`."""
    state: Mapping[str, int]
    """Of a stateful model: the numbers of each state that step.onnx carries; else empty."""
    prior: NDArray[np.float32]
    """(C, Q) quantiles of one step of the training series, raw units."""
    files: Mapping[str, FileEntry]
    raw: Mapping[str, Any]

    @property
    def takes_time(self) -> bool:
        """Whether the graph has the input `time_s`."""
        return "time_s" in self.inputs

    @property
    def steps_per_forecast_step(self) -> int:
        """Context steps in one forecast step: step_s over bin_s; 1 for `requests`."""
        return 1 if self.bin_s is None or self.step_s is None else round(self.step_s / self.bin_s)

    @property
    def output_shapes(self) -> dict[str, tuple[int, int, int]]:
        """Of each output of the graph, without the batch: (H, C, Q), of `demand` (H, 2C, Q)."""
        return {o: (self.horizon, len(output_channels(o, self.channels)), len(self.levels)) for o in self.outputs}


def output_channels(output: str, channels: Sequence[str]) -> tuple[str, ...]:
    """What stands on the channel axis of an output of the graph: in `demand` the sums, then the peaks."""
    if output == "demand":
        return tuple(f"{what} of {channel}" for what in ("sum", "peak") for channel in channels)
    return tuple(channels)


def parse_manifest(data: bytes, *, where: str) -> Manifest:
    """Check the bytes of a manifest.json and type them.

    Args:
        data: content of the file.
        where: its path, for the error texts.

    Raises:
        ArtifactError: not JSON, a newer schema, a key missing or of the wrong type, an impossible value, or a
            self_sha256 that differs.
    """
    raw = read_object(data, where=where)
    check = Fields(raw, where)
    schema = check.integer("schema", low=1)
    if schema > SCHEMA:
        raise ArtifactError(
            f"{where}: expected schema {SCHEMA} or older, got {schema}: written by a newer fcast; upgrade fcast here"
        )
    _check_own_hash(raw, where)

    kind = check.one_of("kind", tuple(CHANNELS))
    channels = tuple(check.strings("channels"))
    if channels not in CHANNELS[kind]:
        check.fail("channels", " or ".join(str(list(c)) for c in CHANNELS[kind]) + f" for kind '{kind}'")
    units = tuple(check.strings("units"))
    if units != tuple(UNITS[c] for c in channels):
        check.fail("units", str([UNITS[c] for c in channels]))
    bin_s, step_s, gap_s = _check_steps(check, kind)
    context = check.integer("context", low=1, high=_MAX_STEPS)
    horizon = check.integer("horizon", low=1, high=_MAX_STEPS)
    levels = _check_levels(check)
    if max(context, horizon * len(levels)) * len(channels) > _MAX_ELEMENTS:
        check.fail("horizon", f"a window and a forecast of at most {_MAX_ELEMENTS} numbers")
    if bin_s is not None and step_s is not None and horizon * (step_s / bin_s) > _MAX_STEPS:
        check.fail("step_s", f"such that the forecast spans at most {_MAX_STEPS} bins of bin_s ({bin_s:g})")
    inputs = tuple(check.strings("inputs"))
    if inputs not in (("context",), ("context", "time_s")):
        check.fail("inputs", '["context"] or ["context", "time_s"]')
    # Artifacts from before there was another output do not have the key.
    outputs = tuple(check.strings("outputs")) if "outputs" in raw else ("forecast",)
    if outputs not in OUTPUTS[kind]:
        check.fail("outputs", " or ".join(json.dumps(o) for o in OUTPUTS[kind]) + f" for kind '{kind}'")

    for key in ("created", "architecture", "precision", "exporter"):
        check.string(key)
    check.integer("opset", low=1)
    # The first artifacts were made before anything hashed the configuration.
    for key in ("checkpoint_sha256", *(["config_sha256"] if "config_sha256" in raw else [])):
        check.matching(key, _SHA256, "64 hexadecimal digits")
    for key in ("params", "trace", "scores", "libraries"):
        check.mapping(key)
    return Manifest(
        name=check.string("name"),
        version=check.integer("version", low=1),
        kind=kind,
        channels=channels,
        units=units,
        clock=check.one_of("clock", ("epoch", "relative")),
        bin_s=bin_s,
        step_s=step_s,
        gap_s=gap_s,
        context=context,
        horizon=horizon,
        levels=levels,
        inputs=inputs,
        outputs=outputs,
        state=_check_step(check),
        prior=_check_prior(check, len(channels), len(levels)),
        files=_check_files(check),
        raw=_freeze(raw),
    )


def self_sha256(raw: Mapping[str, Any]) -> str:
    """The hash of a manifest without its key `self_sha256`, over canonical JSON."""
    body = {key: value for key, value in raw.items() if key != "self_sha256"}
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _check_own_hash(raw: dict[str, Any], where: str) -> None:
    said = raw.get("self_sha256")
    try:
        found = self_sha256(raw)
    except ValueError as error:
        raise ArtifactError(f"{where}: expected finite numbers, got {error}; export again") from None
    if said != found:
        raise ArtifactError(
            f"{where}: expected self_sha256 {show(said)}, found {found}; the manifest was altered, export again"
        )


def _check_steps(check: Fields, kind: str) -> tuple[float | None, float | None, float]:
    gap_s = check.number("gap_s", low=_MIN_BIN_S, high=_MAX_TIME_S)
    if kind == "requests":
        for key in ("bin_s", "step_s"):
            if check.get(key) is not None:
                check.fail(key, "null for kind 'requests'")
        return None, None, gap_s
    bin_s = check.number("bin_s", low=_MIN_BIN_S, high=_MAX_TIME_S)
    step_s = check.number("step_s", low=bin_s, high=_MAX_TIME_S)
    ratio = step_s / bin_s
    if abs(ratio - round(ratio)) > 1e-9 * ratio:
        check.fail("step_s", f"a whole multiple of bin_s ({bin_s:g})")
    if gap_s < bin_s:
        check.fail("gap_s", f"at least bin_s ({bin_s:g})")
    return bin_s, step_s, gap_s


def _check_levels(check: Fields) -> tuple[float, ...]:
    levels = check.items("levels")
    if not 1 <= len(levels) <= _MAX_LEVELS or not all(is_number(x) and 0 < x < 1 for x in levels):
        check.fail("levels", f"1 to {_MAX_LEVELS} numbers between 0 and 1")
    if any(a >= b for a, b in pairwise(levels)):
        check.fail("levels", "increasing numbers")
    return tuple(float(x) for x in levels)


def _check_step(check: Fields) -> Mapping[str, int]:
    # Artifacts of models of windows, and those from before there were others, do not have the key.
    if "step" not in check.raw:
        return MappingProxyType({})
    state = Fields(check.mapping("step"), f"{check.where}: step").mapping("state")
    sizes = list(state.values())
    named = all(_STATE_NAME.fullmatch(name) for name in state)
    if not state or not named or not all(is_integer(size) and 0 < size <= MAX_STATE for size in sizes):
        check.fail("step", f"names of states with sizes from 1 to {MAX_STATE}")
    if sum(sizes) > MAX_STATE:
        check.fail("step", f"at most {MAX_STATE} numbers of state together")
    return MappingProxyType(state)


def _check_prior(check: Fields, channels: int, levels: int) -> NDArray[np.float32]:
    rows = check.items("prior")
    shaped = len(rows) == channels and all(isinstance(row, list) and len(row) == levels for row in rows)
    limit = float(np.finfo(np.float32).max)
    if not shaped or not all(is_number(x) and 0 <= x <= limit for row in rows for x in row):
        check.fail("prior", f"{channels} x {levels} finite, non-negative numbers")
    prior = np.asarray(rows, dtype=np.float32)
    if (np.diff(prior, axis=1) < 0).any():
        check.fail("prior", "rows that do not decrease over the levels")
    prior.flags.writeable = False
    return prior


def _check_files(check: Fields) -> Mapping[str, FileEntry]:
    found: dict[str, FileEntry] = {}
    for name, entry in check.mapping("files").items():
        if not _FILE_NAME.fullmatch(name) or name == "manifest.json":
            raise ArtifactError(
                f"{check.where}: expected plain file names in 'files', got {show(name)}; do not use this artifact"
            )
        said = entry if isinstance(entry, dict) else {}
        sha256: Any = said.get("sha256")
        size: Any = said.get("bytes")
        if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256) or not is_integer(size) or size < 0:
            raise ArtifactError(
                f"{check.where}: expected 'sha256' and 'bytes' for '{name}' in 'files', got {show(entry)}; export again"
            )
        found[name] = FileEntry(sha256, size)
    if not found:
        check.fail("files", "at least one file")
    if len(found) > _MAX_FILES or sum(entry.size_bytes for entry in found.values()) > _MAX_FILES_BYTES:
        check.fail("files", f"at most {_MAX_FILES} files of {_MAX_FILES_BYTES} bytes together")
    return MappingProxyType(found)


def _freeze(value: Any) -> Any:
    if isinstance(value, dict):
        return MappingProxyType({key: _freeze(item) for key, item in value.items()})
    if isinstance(value, list):
        return tuple(_freeze(item) for item in value)
    return value
