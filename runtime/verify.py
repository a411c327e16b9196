"""Does an artifact still forecast here what it forecast where it was made? By hashes and golden windows."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from .artifact import CONFIG, Artifact, open_artifact
from .errors import ArtifactError
from .golden import GOLDEN, Golden, read_golden
from .manifest import output_channels
from .predictor import Predictor
from .proof import Tolerance, read_tolerance

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class FileCheck:
    """One file against the manifest; `problem` is None when it is the same.

    `config.pbtxt`, which all versions share, lies beside the version's folder.
    """

    name: str
    bytes: int
    problem: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ForecastCheck:
    """One channel of one output of the graph on the golden windows, run again."""

    batch: int
    output: str
    """`forecast`, or `demand`."""
    channel: str
    """Of the output: of `demand` `sum of requests` and the like."""
    max_abs: float
    """Largest difference, raw units of the channel; infinite where a number is none."""
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
    rtol: float | None
    """None, as `atol`, when damage kept the golden windows from running and neither was given."""
    atol: float | None
    files: tuple[FileCheck, ...]
    forecasts: tuple[ForecastCheck, ...]

    @property
    def problems(self) -> list[str]:
        """All that differs; empty when the artifact is good."""
        said = [check.problem for check in self.files] + [check.problem for check in self.forecasts]
        return [problem for problem in said if problem is not None]

    def to_dict(self) -> dict[str, Any]:
        """Plain types, ready for JSON: what is not finite is None."""
        forecasts = [
            {key: None if isinstance(v, float) and not math.isfinite(v) else v for key, v in asdict(check).items()}
            for check in self.forecasts
        ]
        return asdict(self) | {"forecasts": forecasts, "ok": not self.problems, "problems": self.problems}


def verify(
    path: str | os.PathLike[str], *, device: str = "auto", rtol: float | None = None, atol: float | None = None
) -> Verification:
    """Hash every file of an artifact and run its golden windows again, all at once and one by one.

    An output passes when |found - expected| <= atol * scale + rtol * |expected| everywhere: the exporter's rule, with
    the tolerance and the scales of the channels that its proof, parity.json, was made with. The scale of a channel is
    that of its sums and peaks too.

    Args:
        path: as `Predictor`.
        device: as `Predictor`.
        rtol: relative tolerance; the proof's if None.
        atol: absolute tolerance in units of a channel's scale, so that it means the same for seconds and tokens; the
            proof's if None.

    Raises:
        InputError: `rtol` or `atol` is negative or not finite.
        ArtifactError: there is no artifact with a readable manifest, or its proof, golden windows or graph make no
            sense.
        DeviceError: as `Predictor`.
    """
    artifact = open_artifact(path)
    files = _check_files(artifact)
    damaged = any(check.problem for check in files)
    # A damaged artifact is not run: what it would say proves nothing.
    predictor = None if damaged else Predictor(artifact.folder, device=device)
    golden = None if damaged else read_golden(artifact)
    forecasts: list[ForecastCheck] = []
    if predictor is not None and golden is not None:
        within = read_tolerance(artifact).replaced(rtol=rtol, atol=atol)
        rtol, atol = within.rtol, within.atol
        for batch in dict.fromkeys((len(golden.context), 1)):
            found = _run(predictor, golden, batch)
            for output in artifact.manifest.outputs:
                forecasts += _compare(artifact, golden, found, output=output, batch=batch, within=within)
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


def _check_files(artifact: Artifact) -> tuple[FileCheck, ...]:
    checks = []
    for name, entry in artifact.manifest.files.items():
        problem = _problem(partial(artifact.check, name))
        checks.append(FileCheck(name=name, bytes=entry.size_bytes, problem=problem))
    config = artifact.folder.parent / CONFIG
    if os.path.lexists(config):  # a version's folder may be moved about alone
        problem = _problem(artifact.check_config)
        checks.append(FileCheck(name=CONFIG, bytes=os.lstat(config).st_size, problem=problem))
    for name in artifact.unlisted():
        where = artifact.folder / name
        problem = f"{where}: expected the files of the manifest alone, found this one; remove it"
        checks.append(FileCheck(name=name, bytes=os.lstat(where).st_size, problem=problem))
    return tuple(checks)


def _problem(check: Callable[[], object]) -> str | None:
    try:
        check()
    except ArtifactError as error:
        return str(error)
    return None


def _run(predictor: Predictor, golden: Golden, batch: int) -> dict[str, NDArray[np.float32]]:
    parts = []
    for at in range(0, len(golden.context), batch):
        piece = slice(at, at + batch)
        time_s = None if golden.time_s is None else golden.time_s[piece]
        parts.append(predictor.predict_outputs(golden.context[piece], time_s))
    return {output: np.concatenate([part[output] for part in parts]) for output in parts[0]}


def _compare(
    artifact: Artifact,
    golden: Golden,
    found: Mapping[str, NDArray[np.float32]],
    *,
    output: str,
    batch: int,
    within: Tolerance,
) -> list[ForecastCheck]:
    checks = []
    channels = artifact.manifest.channels
    for c, channel in enumerate(output_channels(output, channels)):
        want = golden.outputs[output][:, :, c].astype(np.float64)
        got = found[output][:, :, c].astype(np.float64)
        scale = within.scale[c % len(channels)]
        allowed = within.atol * scale + within.rtol * np.abs(want)
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
                output=output,
                channel=channel,
                max_abs=_largest(difference),
                max_rel=_largest(difference / np.maximum(np.abs(want), scale)),
                used=float(ratio[worst]),
                problem=problem,
            )
        )
    return checks


def _largest(values: NDArray[np.float64]) -> float:
    return float(values.max()) if np.isfinite(values).all() else math.inf
