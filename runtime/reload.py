"""A newer version of an artifact, taken into service while forecasts go on: found, proven here, then swapped in.

Everything that takes time happens before the swap, in the thread that asks for it, and holds no lock that an
observation or a forecast needs.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from pathlib import Path
from typing import TypeAlias

from .artifact import MANIFEST, newest_version, open_artifact
from .cuda_options import CudaOptions
from .errors import ArtifactError, InputError
from .fields import show
from .model import Model
from .serving import Serving
from .snapshot import contract

_Files: TypeAlias = "tuple[int, list[tuple[str, int, int]]]"


class Reload:
    """Puts versions of one artifact into service.

    Args:
        path: as `Predictor`.
        serving: where they go; holds the first one.
        threads: as `Predictor`.
        adapt: as `Predictor`.
        cuda: as `Predictor`.

    Attributes:
        error: why the newest version found by `look` is not in service; None when all is well.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        serving: Serving,
        *,
        threads: int,
        adapt: bool,
        cuda: CudaOptions | None = None,
    ) -> None:
        self._root = Path(os.path.abspath(path))  # the host may change its working directory
        self._serving, self._threads, self._adapt, self._cuda = serving, threads, adapt, cuda
        self._pinned = os.path.abspath(serving.model.folder) == str(self._root)
        self._highest = 0 if self._pinned else int(serving.model.folder.name)
        self._refused: _Files | None = None
        self._told: set[int | None] = set()
        self.error: str | None = None

    def check(self) -> None:
        """Refuse a predictor that was given one version's folder.

        Raises:
            InputError: it was.
        """
        if self._pinned:
            raise InputError(
                f"reload: expected a Predictor of an artifact's folder with its versions, got one of {self._root}; "
                f"open {self._root.parent} with version={self._root.name}"
            )

    def to(self, version: int | None) -> bool:
        """See `Predictor.reload`."""
        self.check()
        serving = self._serving.model
        if version is None:
            version = newest_version(self._root)
        if type(version) is int and version == int(serving.folder.name):
            return False
        swapped = self._serving.swap(self._proven(version, serving))
        self._highest = max(self._highest, version)
        self.error = None
        return swapped

    def look(self) -> None:
        """Take a version above all that were in service; what goes wrong is told once for each and never raised.

        A version that was refused is looked at again when its files have changed: a copy may not have been finished.
        """
        version: int | None = None
        files: _Files | None = None
        try:
            version = newest_version(self._root)
            if version <= self._highest:
                self.error = None
                return
            files = version, _files(self._root / str(version))
            if files != self._refused:
                self.to(version)
        except Exception as error:  # whatever it is, the host must not feel it
            self.error = str(error) or type(error).__name__  # the text alone: a traceback would keep the model alive
            if isinstance(error, ArtifactError):
                self._refused = files
            self._tell(version)

    def _tell(self, version: int | None) -> None:
        if version in self._told:
            return
        self._told.add(version)
        with contextlib.suppress(RuntimeWarning):  # a host that makes errors of warnings reads `error`
            warnings.warn(
                f"{self.error}; version {self._serving.model.folder.name} stays in service (said once)",
                RuntimeWarning,
                stacklevel=2,
            )

    def _proven(self, version: int, serving: Model) -> Model:
        """That version on the device in service, after its goldens: what has run them is what will serve, and warm."""
        from .verify import verify_model  # not before it is wanted: a predictor starts 1 MB lighter without it

        artifact = open_artifact(self._root, version=version)
        terms = contract(serving.manifest, adapt=self._adapt)
        for key, value in contract(artifact.manifest, adapt=self._adapt).items():
            if value != terms[key]:
                where = artifact.folder / MANIFEST
                raise ArtifactError(
                    f"{where}: expected {key} {show(terms[key])}, as in service, got {show(value)}; "
                    "open it with a Predictor of its own"
                )
        model = Model(artifact, version=None, device=serving.session.device, threads=self._threads, cuda=self._cuda)
        model.session.choice = serving.session.choice
        due, model.clock_due = model.clock_due, False  # goldens are not the host's times, nor its runs
        if problems := verify_model(model).problems:
            more = f" (and {len(problems) - 1} more: fcast-verify {model.folder})" if len(problems) > 1 else ""
            raise ArtifactError(problems[0] + more)
        model.stats.clear()
        model.clock_due = due and (serving.clock_due or not serving.manifest.takes_time)
        return model


def _files(folder: Path) -> list[tuple[str, int, int]]:
    with os.scandir(folder) as entries:
        found = [(entry.name, entry.stat(follow_symlinks=False)) for entry in entries]
    return sorted((name, stat.st_size, stat.st_ctime_ns) for name, stat in found)
