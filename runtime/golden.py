"""golden.npz: real windows and what the graph must give for them, read without trusting the file.

An .npz is a zip of .npy files: either can declare sizes that would fill the memory. The end of the zip is read before
Python's reader lists what is in it, everything declared is compared with the manifest's shapes before a byte is
unpacked, and a header of an .npy is taken only in the one form in which numpy writes those of plain numbers.
"""

from __future__ import annotations

import io
import math
import re
import struct
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .artifact import Artifact
from .errors import ArtifactError
from .fields import plain, show
from .manifest import Manifest

if TYPE_CHECKING:
    from numpy.typing import NDArray

GOLDEN = "golden.npz"
MAX_WINDOWS = 4096
MAX_UNPACKED_BYTES = 256 << 20
_MAX_PACKED_BYTES = 256 << 20
_MAX_DIRECTORY_BYTES = 4096
_PACKING = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)

_END = struct.Struct("<4s4H2LH")
"""A zip's last record: signature, disk numbers, entries here and in all, directory's size and place, comment."""
_END_64 = struct.Struct("<4sLQL")
"""What stands before it when a record of 64-bit numbers takes its place."""
_MAGIC = b"\x93NUMPY\x01\x00"
_HEADER = re.compile(
    r"\{'descr': '([^'\\]+)', 'fortran_order': (False|True), 'shape': \((\d{1,20}(?:, \d{1,20})*),?\),? ?\} *\n"
)


@dataclass(frozen=True, slots=True, eq=False)
class Golden:
    """(N, L, C) float32 contexts, (N,) float64 times where the graph takes them, and the graph's outputs for them."""

    context: NDArray[np.float32]
    time_s: NDArray[np.float64] | None
    outputs: dict[str, NDArray[np.float32]]
    """By name: `forecast` (N, H, C, Q) and, where the graph gives it, `demand` (N, H, 2C, Q)."""


def read_golden(artifact: Artifact) -> Golden:
    """Read an artifact's golden windows.

    Raises:
        ArtifactError: missing, altered, not an .npz of the manifest's shapes, larger than the limits above, or a number
            in it is none that a window or a forecast can hold.
    """
    where = str(artifact.folder / GOLDEN)
    data = artifact.read(GOLDEN, max_bytes=_MAX_PACKED_BYTES)
    expected = _expected(artifact.manifest)
    _check_end(data, where=where)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            _check_members(archive.infolist(), expected, where=where)
            arrays = {key: _read_array(archive, key, *expected[key], where=where) for key in expected}
    except ArtifactError:
        raise
    except Exception as error:  # hostile bytes draw a dozen classes from zipfile and zlib, under Exception alone
        raise ArtifactError(f"{where}: expected an .npz file, got {show(str(error))}; export again") from None
    lengths = {key: len(array) for key, array in arrays.items()}
    if len(set(lengths.values())) != 1 or not 1 <= lengths["context"] <= MAX_WINDOWS:
        raise ArtifactError(f"{where}: expected 1 to {MAX_WINDOWS} windows in each array, got {lengths}; export again")
    for key, array in arrays.items():
        if not (np.isfinite(array).all() and (key == "time_s" or (array >= 0).all())):
            allowed = "finite numbers" if key == "time_s" else "finite numbers from 0"
            raise ArtifactError(f"{where}: expected '{key}' to hold {allowed}, got others; do not use this artifact")
    outputs = {name: arrays[name] for name in artifact.manifest.outputs}
    return Golden(arrays["context"], arrays.get("time_s"), outputs)


def _expected(manifest: Manifest) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Array name -> dtype and shape after the axis of windows."""
    expected: dict[str, tuple[str, tuple[int, ...]]] = {
        "context": ("<f4", (manifest.context, len(manifest.channels))),
        **{name: ("<f4", shape) for name, shape in manifest.output_shapes.items()},
    }
    return expected | ({"time_s": ("<f8", ())} if manifest.takes_time else {})


def _check_end(data: bytes, *, where: str) -> None:
    """Python's reader makes an object of each entry of a directory, and there is room for millions."""
    if len(data) < _END.size:
        raise ArtifactError(f"{where}: expected an .npz file, got {len(data)} bytes; export again")
    mark, _, _, _, _, size, _, comment = _END.unpack(data[-_END.size :])
    if mark != b"PK\x05\x06" or comment:
        raise ArtifactError(f"{where}: expected an .npz file, got bytes without a zip's end; export again")
    wide = data[-_END.size - _END_64.size :].startswith(b"PK\x06\x07")
    if wide or size > _MAX_DIRECTORY_BYTES:
        raise ArtifactError(
            f"{where}: expected a zip's directory of at most {_MAX_DIRECTORY_BYTES} bytes, "
            f"got {'one of 64 bits' if wide else size}; do not use this artifact"
        )


def _check_members(members: list[zipfile.ZipInfo], expected: Iterable[str], *, where: str) -> None:
    found = sorted(member.filename for member in members)
    if found != sorted(f"{key}.npy" for key in expected):
        raise ArtifactError(
            f"{where}: expected the arrays {', '.join(expected)}, got {plain(', '.join(found))[:200]}; export again"
        )
    unpacked = sum(member.file_size for member in members)
    if unpacked > MAX_UNPACKED_BYTES:
        raise ArtifactError(
            f"{where}: expected at most {MAX_UNPACKED_BYTES} bytes unpacked, got {unpacked}; do not use this artifact"
        )
    # Others allocate as their own headers say.
    if any(member.compress_type not in _PACKING for member in members):
        raise ArtifactError(f"{where}: expected members that are stored or deflated, got others; export again")


def _read_array(archive: zipfile.ZipFile, key: str, dtype: str, shape: tuple[int, ...], *, where: str) -> NDArray[Any]:
    size = archive.getinfo(f"{key}.npy").file_size
    with archive.open(f"{key}.npy") as file:
        data = file.read(size)
    start = len(_MAGIC) + 2
    end = start + int.from_bytes(data[len(_MAGIC) : start], "little")
    header = _HEADER.fullmatch(data[start:end].decode("latin-1"))
    if not data.startswith(_MAGIC) or header is None:
        raise ArtifactError(
            f"{where}: expected '{key}' as an .npy array of plain numbers, got {show(data[:80])}; export again"
        )
    kind, order, dims = header.groups()
    found = tuple(map(int, dims.split(", ")))
    fits = kind == dtype and len(found) == 1 + len(shape) and found[1:] == shape
    if not fits or len(data) != end + np.dtype(dtype).itemsize * math.prod(found):
        axes = ", ".join(map(str, ("windows", *shape)))
        raise ArtifactError(
            f"{where}: expected '{key}' as {np.dtype(dtype)} ({axes}), got {show(kind)} {show(found)} in {len(data)} "
            "bytes; export again"
        )
    array = np.frombuffer(data, dtype=dtype, offset=end).reshape(found, order="F" if order == "True" else "C")
    return np.ascontiguousarray(array)
