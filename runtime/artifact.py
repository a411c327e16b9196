"""Where an artifact lies and how its files are read: once, bounded, hashed, and never outside its folder."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .errors import ArtifactError, InputError
from .manifest import MAX_BYTES, Manifest, parse_manifest

MAX_GRAPH_BYTES = (1 << 31) - 1
"""Protobuf's own limit: no ONNX file in one piece is larger."""

CONFIG = "config.pbtxt"
MANIFEST = "manifest.json"
_MAX_CONFIG_BYTES = 1 << 20
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Artifact:
    """One version of an artifact: its folder and its manifest."""

    folder: Path
    manifest: Manifest

    def read(self, name: str, *, max_bytes: int) -> bytes:
        """Return the bytes of a file whose size and sha256 are those of the manifest.

        Raises:
            ArtifactError: not in the manifest, missing, not a plain file inside the folder, larger than
                `max_bytes`, or different from the manifest.
        """
        where = self.folder / name
        size = self._declared_size(name)
        if size > max_bytes:
            raise ArtifactError(f"{where}: expected at most {max_bytes} bytes, got {size}; do not use this artifact")
        data = b"".join(_chunks(self.folder, name, limit=size + 1))
        self._compare(name, len(data), hashlib.sha256(data).hexdigest())
        return data

    def check(self, name: str) -> None:
        """Hash a file of any size without keeping it.

        Raises:
            ArtifactError: as `read`.
        """
        digest, found = hashlib.sha256(), 0
        for chunk in _chunks(self.folder, name, limit=self._declared_size(name) + 1):
            digest.update(chunk)
            found += len(chunk)
        self._compare(name, found, digest.hexdigest())

    def check_config(self) -> None:
        """Hash the config.pbtxt beside the version's folder; its sha256 must be in the manifest.

        Raises:
            ArtifactError: it is no plain file there, or its sha256 differs from the manifest.
        """
        where = self.folder.parent / CONFIG
        data = b"".join(_chunks(self.folder.parent, CONFIG, limit=_MAX_CONFIG_BYTES))
        expected, found = self.manifest.raw["config_sha256"], hashlib.sha256(data).hexdigest()
        if found != expected:
            raise ArtifactError(
                f"{where}: expected sha256 {expected}, found {found}; the file was altered, copy it again"
            )

    def unlisted(self) -> list[tuple[str, int]]:
        """Names in the folder that the manifest does not have, and their bytes.

        Raises:
            ArtifactError: the folder cannot be listed.
        """
        try:
            with os.scandir(self.folder) as entries:
                found = [(e.name, e.stat(follow_symlinks=False).st_size) for e in entries]
        except OSError as error:
            raise ArtifactError(f"{self.folder}: expected a folder that can be read, got {error.strerror}") from None
        return sorted((name, size) for name, size in found if name != MANIFEST and name not in self.manifest.files)

    def _declared_size(self, name: str) -> int:
        entry = self.manifest.files.get(name)
        if entry is None:
            listed = ", ".join(self.manifest.files)
            raise ArtifactError(
                f"{self.folder / MANIFEST}: expected '{name}' in 'files', found only {listed}; "
                "export the format that is needed"
            )
        return entry.size_bytes

    def _compare(self, name: str, size: int, sha256: str) -> None:
        where, entry = self.folder / name, self.manifest.files[name]
        if size != entry.size_bytes:
            found = f"{size} bytes" if size < entry.size_bytes else "more"
            raise ArtifactError(
                f"{where}: expected {entry.size_bytes} bytes, found {found}; the file was cut or altered, copy it again"
            )
        if sha256 != entry.sha256:
            raise ArtifactError(
                f"{where}: expected sha256 {entry.sha256}, found {sha256}; the file was altered, copy it again"
            )


def open_artifact(path: str | os.PathLike[str], *, version: int | None = None) -> Artifact:
    """Find a version of an artifact and read its manifest.

    Args:
        path: `artifacts/<name>`, where the newest version is taken, or `artifacts/<name>/<version>`.
        version: take this one of `artifacts/<name>`.

    Raises:
        ArtifactError: nothing is there, or the manifest is refused.
        InputError: `path` is no path, or `version` is no version.
    """
    folder = _resolve(path, version)
    data = b"".join(_chunks(folder, MANIFEST, limit=MAX_BYTES + 1))
    where = folder / MANIFEST
    if len(data) > MAX_BYTES:
        raise ArtifactError(f"{where}: expected at most {MAX_BYTES} bytes, found more; do not use this artifact")
    return Artifact(folder, parse_manifest(data, where=str(where)))


def newest_version(path: str | os.PathLike[str]) -> int:
    """The newest version of `artifacts/<name>`, by the names of its folders alone.

    Raises:
        ArtifactError: there is no version, or no folder that can be read.
    """
    return int(_resolve(path, None).name)


def _resolve(path: str | os.PathLike[str], version: int | None) -> Path:
    if not isinstance(path, (str, os.PathLike)):
        raise InputError(f"path: expected the path of an artifact, got {type(path).__name__}")
    if version is not None and (isinstance(version, bool) or not isinstance(version, int) or version < 1):
        raise InputError(f"version: expected a whole number from 1 or None, got {version!r}")
    root = Path(path)
    try:
        if not root.is_dir():
            found = "a file" if root.exists() else "nothing there"
            raise ArtifactError(f"{root}: expected an artifact's folder, found {found}; see fcast-export --help")
        if os.path.lexists(root / MANIFEST):
            if version is not None:
                raise InputError(f"version: expected None for one version's folder {root}, got {version}")
            return root
        versions = _versions(root)
    except (OSError, ValueError) as error:
        if isinstance(error, (ArtifactError, InputError)):
            raise
        raise ArtifactError(f"{root}: expected a folder that can be read, got {error}") from None
    if version is None and versions:
        return root / str(versions[-1])
    if version in versions:
        return root / str(version)
    wanted = "a version folder (1, 2, ...)" if version is None else f"version {version}"
    listed = ", ".join(map(str, versions)) or "none"
    raise ArtifactError(f"{root}: expected {wanted}, found {listed}; see fcast-export --help")


def _versions(root: Path) -> list[int]:
    # Triton's rule: a folder whose name is not a number, or starts with 0, is no version. Staging folders are such.
    names = (entry.name for entry in root.iterdir() if entry.is_dir())
    return sorted(int(name) for name in names if name.isascii() and name.isdigit() and name[0] != "0")


def _chunks(folder: Path, name: str, *, limit: int) -> Iterator[bytes]:
    """Yield at most `limit` bytes of a plain file that really lies in `folder`."""
    where = folder / name
    try:
        real = os.path.realpath(where, strict=True)
        if os.path.dirname(real) != os.path.realpath(folder):
            raise ArtifactError(
                f"{where}: expected a file inside the artifact, found a link to {real}; copy the file itself"
            )
        # O_NONBLOCK: opening a named pipe must not wait for a writer. O_NOFOLLOW: no link swapped in since realpath.
        handle = os.open(real, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        with open(handle, "rb", buffering=0) as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise ArtifactError(f"{where}: expected a plain file, found something else; copy the file itself")
            while limit > 0 and (chunk := file.read(min(limit, _CHUNK_BYTES))):
                limit -= len(chunk)
                yield chunk
    except FileNotFoundError:
        raise ArtifactError(
            f"{where}: expected a file, found none; the artifact is incomplete, copy it again"
        ) from None
    except OSError as error:
        if isinstance(error, ArtifactError):
            raise
        raise ArtifactError(f"{where}: expected a file that can be read, got {error.strerror or error}") from None
