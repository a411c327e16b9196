"""golden.npz: real windows and what the graph must give for them, read without trusting the file.

An .npz is a zip of .npy files: either can declare sizes that would fill the memory. Everything declared is compared
with the manifest's shapes before a byte is unpacked, and no pickle is ever read.
"""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .artifact import Artifact
from .errors import ArtifactError
from .manifest import Manifest

if TYPE_CHECKING:
    from numpy.typing import NDArray

GOLDEN = "golden.npz"
MAX_WINDOWS = 4096
MAX_UNPACKED_BYTES = 256 << 20
_MAX_PACKED_BYTES = 256 << 20
_MAX_HEADER_BYTES = 4096


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
        ArtifactError: missing, altered, not an .npz of the manifest's shapes, or larger than the limits above.
    """
    where = str(artifact.folder / GOLDEN)
    data = artifact.read(GOLDEN, max_bytes=_MAX_PACKED_BYTES)
    expected = _expected(artifact.manifest)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            found = sorted(info.filename for info in archive.infolist())
            if found != sorted(f"{key}.npy" for key in expected):
                raise ArtifactError(f"{where}: expected the arrays {', '.join(expected)}, got {', '.join(found[:8])}")
            unpacked = sum(info.file_size for info in archive.infolist())
            if unpacked > MAX_UNPACKED_BYTES:
                raise ArtifactError(
                    f"{where}: expected at most {MAX_UNPACKED_BYTES} bytes unpacked, got {unpacked}; "
                    "do not use this artifact"
                )
            arrays = {key: _read_array(archive, key, *expected[key], where=where) for key in expected}
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, OSError) as error:
        raise ArtifactError(f"{where}: expected an .npz file, got {error}; export again") from None
    lengths = {key: len(array) for key, array in arrays.items()}
    if len(set(lengths.values())) != 1 or not 1 <= lengths["context"] <= MAX_WINDOWS:
        raise ArtifactError(f"{where}: expected 1 to {MAX_WINDOWS} windows in each array, got {lengths}; export again")
    outputs = {name: arrays[name] for name in artifact.manifest.outputs}
    return Golden(arrays["context"], arrays.get("time_s"), outputs)


def _expected(manifest: Manifest) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Array name -> dtype and shape after the axis of windows."""
    expected: dict[str, tuple[str, tuple[int, ...]]] = {
        "context": ("<f4", (manifest.context, len(manifest.channels))),
        **{name: ("<f4", shape) for name, shape in manifest.output_shapes.items()},
    }
    return expected | ({"time_s": ("<f8", ())} if manifest.takes_time else {})


def _read_array(archive: zipfile.ZipFile, key: str, dtype: str, shape: tuple[int, ...], *, where: str) -> NDArray[Any]:
    size = archive.getinfo(f"{key}.npy").file_size
    with archive.open(f"{key}.npy") as file:
        data = file.read(size)
    head = io.BytesIO(data[: _MAX_HEADER_BYTES + 16])
    try:
        version = np.lib.format.read_magic(head)
        if version != (1, 0):
            raise ValueError(f"version {version} of the .npy format")
        found, fortran, kind = np.lib.format.read_array_header_1_0(head, max_header_size=_MAX_HEADER_BYTES)
    except ValueError as error:
        raise ArtifactError(f"{where}: expected '{key}' as an .npy array, got {error}; export again") from None
    fits = len(found) == 1 + len(shape) and found[1:] == shape and kind == np.dtype(dtype)
    if not fits or len(data) != head.tell() + kind.itemsize * math.prod(found):
        axes = ", ".join(map(str, ("windows", *shape)))
        raise ArtifactError(
            f"{where}: expected '{key}' as {np.dtype(dtype)} ({axes}), got {kind} {found} in {len(data)} bytes; "
            "export again"
        )
    array = np.frombuffer(data, dtype=kind, offset=head.tell()).reshape(found, order="F" if fortran else "C")
    return np.ascontiguousarray(array)
