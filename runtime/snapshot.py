"""The bytes of a snapshot: what streams remember, to go on elsewhere as if nothing had been. No pickle; nothing is run.

    magic       8 bytes, FCASTSNP
    version     uint32, little-endian like all that follows
    length      uint32, of the header
    header      JSON: what it is of, the contract, the model, and of each stream the single values
    numbers     arrays of the streams, one after the other, in the order that `runtime.memory` reads them in
    sha256      32 bytes, of all before

A stream may go on before any model with the same contract, not only the one it came from: with a newer version of the
artifact, for one. Its standing forecast is that model's own and stays behind then.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import numpy as np

from .errors import InputError
from .fields import show
from .manifest import Manifest

if TYPE_CHECKING:
    from numpy.typing import NDArray

VERSION = 2
"""2 came with the circuit breaker; of 1 it begins anew."""
_MAGIC = b"FCASTSNP"
_START = struct.Struct("<8sII")
_HASH_BYTES = 32
_REMEDY = "take another snapshot"


class Numbers:
    """Arrays in a row: `put` in some order, then `take` in the same one.

    Args:
        data: those of a snapshot to be read.
    """

    def __init__(self, data: bytes | memoryview = b"") -> None:
        self._data, self._at = data, 0
        self.pieces: list[bytes] = []

    def put(self, array: NDArray[Any]) -> None:
        """Add an array of floats, in its own precision."""
        self.pieces.append(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())

    def take(
        self, shape: Sequence[int], dtype: type, *, low: float = -math.inf, high: float = math.inf
    ) -> NDArray[Any]:
        """The next array, as a copy.

        Raises:
            InputError: too few numbers are left, or one is not finite or out of bounds.
        """
        kind = np.dtype(dtype)
        count = math.prod(shape)
        end = self._at + count * kind.itemsize
        if end > len(self._data):
            _refuse(f"{count} more numbers", f"{len(self._data) - self._at} bytes")
        found = np.frombuffer(self._data[self._at : end], dtype=kind.newbyteorder("<")).astype(kind).reshape(shape)
        self._at = end
        if not (np.isfinite(found) & (found >= low) & (found <= high)).all():
            _refuse(f"finite numbers from {low:g} to {high:g}", "others")
        return found

    def finish(self) -> None:
        """Refuse numbers that are left over."""
        if self._at != len(self._data):
            _refuse("the end", f"{len(self._data) - self._at} bytes more")


class Snapshot(NamedTuple):
    """An opened snapshot."""

    streams: Sequence[Mapping[str, Any]]
    """Of each stream its key and its single values."""
    numbers: Numbers
    same_model: bool
    """Whether it was taken before this very model."""


def contract(manifest: Manifest, *, adapt: bool) -> dict[str, Any]:
    """What two models must have in common for one to go on with the other's streams."""
    return {
        "kind": manifest.kind,
        "channels": list(manifest.channels),
        "clock": manifest.clock,
        "bin_s": manifest.bin_s,
        "step_s": manifest.step_s,
        "gap_s": manifest.gap_s,
        "context": manifest.context,
        "horizon": manifest.horizon,
        "levels": list(manifest.levels),
        "adapt": adapt,
    }


def pack(of: str, streams: Sequence[Mapping[str, Any]], numbers: Numbers, manifest: Manifest, *, adapt: bool) -> bytes:
    """The bytes of a snapshot.

    Args:
        of: `predictor` or `stream`.
        streams: as `Snapshot.streams`, plain values for JSON.
        numbers: their arrays, in the same order.
        manifest: of the model before which they stand.
        adapt: whether they adapt.
    """
    header = {
        "of": of,
        "contract": contract(manifest, adapt=adapt),
        "model": manifest.raw["self_sha256"],
        "streams": streams,
    }
    text = json.dumps(header, separators=(",", ":"), allow_nan=False).encode()
    body = b"".join((_START.pack(_MAGIC, VERSION, len(text)), text, *numbers.pieces))
    return body + hashlib.sha256(body).digest()


def unpack(data: bytes, *, of: str, manifest: Manifest, adapt: bool) -> Snapshot:
    """Check a snapshot and open it.

    Raises:
        InputError: no snapshot, truncated, altered, of a newer version, of something else, or of another contract.
    """
    if not isinstance(data, bytes):
        _refuse("bytes", type(data).__name__)
    if len(data) < _START.size + _HASH_BYTES or not data.startswith(_MAGIC):
        _refuse(f"bytes that begin with {_MAGIC.decode()}", f"{len(data)} bytes, {show(data[:8])}...")
    _, version, length = _START.unpack_from(data)
    if not 1 <= version <= VERSION:
        _refuse(
            f"version {VERSION} or older",
            str(version),
            "take it with the fcast that is to go on, or upgrade fcast here",
        )
    body, said = data[:-_HASH_BYTES], data[-_HASH_BYTES:]
    found = hashlib.sha256(body).digest()
    if said != found:
        _refuse(f"sha256 {said.hex()}", f"{found.hex()}; it was truncated or altered")
    try:
        header = json.loads(body[_START.size : _START.size + length])
        was, terms, model, streams = (header[key] for key in ("of", "contract", "model", "streams"))
        known = isinstance(terms, dict) and isinstance(streams, list) and all(isinstance(s, dict) for s in streams)
    except (ValueError, RecursionError, KeyError, TypeError) as error:
        _refuse("a header in JSON", f"{type(error).__name__}: {show(str(error))}")
    if not known:
        _refuse("a contract and streams", "others")
    if was != of:
        _refuse(f"that of a {of}", f"that of a {show(was)}", "restore it where it was taken")
    for key, value in contract(manifest, adapt=adapt).items():
        if terms.get(key) != value:
            remedy = "a stream goes on only before a model that is fed and asked alike"
            _refuse(f"{key} {show(value)}, as here", show(terms.get(key)), remedy)
    numbers = Numbers(memoryview(body)[_START.size + length :])
    return Snapshot(streams, numbers, model == manifest.raw["self_sha256"])


def _refuse(expected: str, found: str, remedy: str = _REMEDY) -> NoReturn:
    raise InputError(f"snapshot: expected {expected}, got {found}; {remedy}") from None
