"""Does an artifact still forecast here what it forecast where it was made? By hashes and golden windows."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .artifact import Artifact, open_artifact
from .errors import ArtifactError
from .golden import GOLDEN, Golden, read_golden
from .predictor import Predictor

if TYPE_CHECKING:
    from numpy.typing import NDArray

RTOL = 1e-4
ATOL = 1e-5


@dataclass(frozen=True, slots=True, kw_only=True)
class FileCheck:
    """One file against the manifest; `problem` is None when it is the same."""

    name: str
    bytes: int
    problem: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ForecastCheck:
    """One channel of the golden forecasts, run again."""

    batch: int
    channel: str
    max_abs: float
    """Largest difference, raw units of the channel."""
    max_rel: float
    """Largest difference over the expected value, or over the channel's scale where that is larger."""
    used: float
    """Largest difference as a part of what is tolerated at its place; above 1 fails."""
    problem: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What was checked and what came out."""

    artifact: str
    name: str
    version: int
    device: str | None
    """Where the golden windows ran; None when damage kept them from running."""
    providers: tuple[str, ...]
    windows: int
    rtol: float
    atol: float
    files: tuple[FileCheck, ...]
    forecasts: tuple[ForecastCheck, ...]

    @property
    def problems(self) -> list[str]:
        """All that differs; empty when the artifact is good."""
        said = [check.problem for check in self.files] + [check.problem for check in self.forecasts]
        return [problem for problem in said if problem is not None]

    def to_dict(self) -> dict[str, Any]:
        """Plain types, ready for JSON."""
        return asdict(self) | {"ok": not self.problems, "problems": self.problems}


def verify(
    path: str | os.PathLike[str], *, device: str = "auto", rtol: float = RTOL, atol: float = ATOL
) -> Verification:
    """Hash every file of an artifact and run its golden windows again, all at once and one by one.

    A forecast passes when |found - expected| <= atol * scale + rtol * |expected| everywhere, as in the exporter's
    parity check; a channel's scale is its mean over the golden contexts.

    Args:
        path: as `Predictor`.
        device: as `Predictor`.
        rtol: relative tolerance.
        atol: absolute tolerance in units of a channel's scale, so that it means the same for seconds and tokens.

    Raises:
        ArtifactError: there is no artifact with a readable manifest, or its golden windows or graph make no sense.
        DeviceError: as `Predictor`.
    """
    artifact = open_artifact(path)
    files = tuple(_check_file(artifact, name) for name in artifact.manifest.files)
    damaged = any(check.problem for check in files)
    # A damaged artifact is not run: what it would say proves nothing.
    predictor = None if damaged else Predictor(artifact.folder, device=device)
    golden = None if damaged else read_golden(artifact)
    forecasts: list[ForecastCheck] = []
    if predictor is not None and golden is not None:
        for batch in dict.fromkeys((len(golden.context), 1)):
            found = _run(predictor, golden, batch)
            forecasts += _compare(artifact, golden, found, batch=batch, rtol=rtol, atol=atol)
    return Verification(
        artifact=str(artifact.folder),
        name=artifact.manifest.name,
        version=artifact.manifest.version,
        device=None if predictor is None else predictor.device,
        providers=() if predictor is None else predictor.providers,
        windows=0 if golden is None else len(golden.context),
        rtol=rtol,
        atol=atol,
        files=files,
        forecasts=tuple(forecasts),
    )


def _check_file(artifact: Artifact, name: str) -> FileCheck:
    problem = None
    try:
        artifact.check(name)
    except ArtifactError as error:
        problem = str(error)
    return FileCheck(name=name, bytes=artifact.manifest.files[name].size_bytes, problem=problem)


def _run(predictor: Predictor, golden: Golden, batch: int) -> NDArray[np.float32]:
    parts = []
    for at in range(0, len(golden.context), batch):
        piece = slice(at, at + batch)
        time_s = None if golden.time_s is None else golden.time_s[piece]
        parts.append(predictor.predict(golden.context[piece], time_s))
    return np.concatenate(parts)


def _compare(
    artifact: Artifact,
    golden: Golden,
    found: NDArray[np.float32],
    *,
    batch: int,
    rtol: float,
    atol: float,
) -> list[ForecastCheck]:
    checks = []
    for c, channel in enumerate(artifact.manifest.channels):
        want, got = golden.forecast[:, :, c].astype(np.float64), found[:, :, c].astype(np.float64)
        scale = float(golden.context[:, :, c].mean(dtype=np.float64)) or 1.0
        allowed = atol * scale + rtol * np.abs(want)
        difference = np.abs(got - want)
        # Not a number anywhere is the worst difference of all.
        ratio = np.where(difference == 0, 0.0, difference / np.maximum(allowed, np.finfo(np.float64).tiny))
        ratio = np.where(np.isfinite(difference), ratio, np.inf)
        worst = np.unravel_index(int(ratio.argmax()), ratio.shape)
        problem = None
        if ratio[worst] > 1:
            problem = (
                f"{artifact.folder / GOLDEN}: window {worst[0]}, step {worst[1] + 1}, {channel}, "
                f"level {artifact.manifest.levels[worst[2]]}, batch {batch}: expected {want[worst]:.7g} "
                f"within {allowed[worst]:.2g}, found {got[worst]:.7g}; do not serve this artifact here"
            )
        checks.append(
            ForecastCheck(
                batch=batch,
                channel=channel,
                max_abs=float(difference.max()),
                max_rel=float((difference / np.maximum(np.abs(want), scale)).max()),
                used=float(ratio[worst]),
                problem=problem,
            )
        )
    return checks
