"""Does an artifact forecast here what it forecast where it was made? By hashes, and golden windows on each device."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from .artifact import CONFIG, MANIFEST, Artifact, open_artifact
from .device import Session, devices
from .errors import ArtifactError, DeviceError
from .fields import plain
from .golden import GOLDEN, MAX_WINDOWS, Golden, read_golden
from .manifest import STEP, output_channels
from .model import GRAPH, Model
from .proof import Tolerance, read_tolerance
from .step import StepSession
from .verify_step import golden_by_steps

if TYPE_CHECKING:
    from numpy.typing import NDArray

EVERY = "every"
"""The CPU, and CUDA where it works."""
_METADATA = "fcast."
_PIECE = 64
"""Windows in one run beside a host that forecasts: a batch of thousands would keep the caches and a core from it."""


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
    """One channel of one output of a graph on the golden windows, run again."""

    graph: str
    """The file: `model.onnx`, or `step.onnx`, which took the windows in from a cold state."""
    device: str
    """`cpu` or `cuda:N`, read back."""
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
    """Where the golden windows ran, `cpu, cuda:0` for both; None when damage kept them from running."""
    providers: tuple[str, ...]
    """Execution providers that ran them, read back."""
    not_run: dict[str, str]
    """Devices that onnxruntime was built for and that do not work here, with the reason."""
    windows: int
    rtol: float | None
    """None, as `atol`, when damage kept the golden windows from running and neither was given."""
    atol: float | None
    files: tuple[FileCheck, ...]
    contradictions: tuple[str, ...]
    """What the graph says about itself and the manifest says otherwise."""
    forecasts: tuple[ForecastCheck, ...]

    @property
    def problems(self) -> list[str]:
        """All that differs; empty when the artifact is good."""
        said = [check.problem for check in self.files] + [check.problem for check in self.forecasts]
        return [problem for problem in said if problem is not None] + list(self.contradictions)

    def to_dict(self) -> dict[str, Any]:
        """Plain types, ready for JSON: what is not finite is None."""
        forecasts = [
            {key: None if isinstance(v, float) and not math.isfinite(v) else v for key, v in asdict(check).items()}
            for check in self.forecasts
        ]
        return asdict(self) | {"forecasts": forecasts, "ok": not self.problems, "problems": self.problems}


def verify(
    path: str | os.PathLike[str], *, device: str = EVERY, rtol: float | None = None, atol: float | None = None
) -> Verification:
    """Hash every file of an artifact and run its golden windows again on each device, all at once and one by one.

    What the graph says about itself (units, levels and the like) is compared with the manifest, which no hash protects
    from whoever writes its seal anew.

    An output passes when |found - expected| <= atol * scale + rtol * |expected| everywhere: the exporter's rule, with
    the tolerance and the scales of the channels that its proof, parity.json, was made with. The scale of a channel is
    that of its sums and peaks too.

    Args:
        path: as `Predictor`.
        device: `every` for the CPU and, where it works, CUDA; or one device, as `Predictor`.
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
    files = _check_files(artifact) + _check_config(artifact)
    if any(check.problem for check in files):  # a damaged artifact is not run: what it would say proves nothing
        return _judge(artifact, files, [], {}, rtol=rtol, atol=atol, piece=MAX_WINDOWS)
    models, not_run = _open(artifact, device)
    return _judge(artifact, files, models, not_run, rtol=rtol, atol=atol, piece=MAX_WINDOWS)


def verify_model(model: Model) -> Verification:
    """As `verify`, with the proof's own tolerance, for a model that is open already, while its host forecasts.

    What ran the golden windows is then what will serve. They go through in pieces of 64, and one by one. config.pbtxt,
    which the runtime never reads, is left out.

    Raises:
        ArtifactError: as `verify`.
    """
    artifact = Artifact(model.folder, model.manifest)
    files = _check_files(artifact)
    models = [] if any(check.problem for check in files) else [model]
    return _judge(artifact, files, models, {}, rtol=None, atol=None, piece=_PIECE)


def _judge(
    artifact: Artifact,
    files: tuple[FileCheck, ...],
    models: Sequence[Model],
    not_run: dict[str, str],
    *,
    rtol: float | None,
    atol: float | None,
    piece: int,
) -> Verification:
    """Run the golden windows on each model, `piece` of them at a time and one by one."""
    windows, forecasts, contradictions = 0, [], []
    if models:
        golden = read_golden(artifact)
        within = read_tolerance(artifact).replaced(rtol=rtol, atol=atol)
        windows, rtol, atol = len(golden.context), within.rtol, within.atol
        contradictions = _contradictions(artifact, models[0].session)
        if models[0].step is not None:
            contradictions += _contradictions(artifact, models[0].step)
        for model in models:
            for batch in dict.fromkeys((min(windows, piece), 1)):
                by_graph = {GRAPH: _run(model, golden, batch)}
                if model.step is not None:
                    by_graph[STEP] = golden_by_steps(model.step, golden.context, golden.time_s, batch)
                for graph, found in by_graph.items():
                    what = {"graph": graph, "device": model.session.device, "batch": batch}
                    for output in artifact.manifest.outputs:
                        forecasts += _compare(artifact, golden, found, what, output=output, within=within)
    return Verification(
        artifact=str(artifact.folder),
        name=artifact.manifest.name,
        version=artifact.manifest.version,
        device=", ".join(model.session.device for model in models) or None,
        providers=tuple(dict.fromkeys(provider for model in models for provider in model.session.providers)),
        not_run=not_run,
        windows=windows,
        rtol=rtol,
        atol=atol,
        files=files,
        contradictions=tuple(contradictions),
        forecasts=tuple(forecasts),
    )


def _open(artifact: Artifact, device: str) -> tuple[list[Model], dict[str, str]]:
    """The graph on each device, and why it is not on some."""
    models, not_run = [], {}
    for one in devices() if device == EVERY else (device,):
        try:
            models.append(Model(artifact, version=None, device=one, threads=1))
        except DeviceError as error:
            if device != EVERY:
                raise
            not_run[one] = str(error)
    return models, not_run


def _contradictions(artifact: Artifact, session: Session | StepSession) -> list[str]:
    """Facts in the graph's own metadata that the manifest has otherwise; graphs of other exporters have none."""
    found = []
    try:
        metadata = session.metadata()
    except UnicodeDecodeError as error:
        raise ArtifactError(f"{artifact.folder}: expected a graph with metadata in UTF-8, got {error}") from None
    for key, text in metadata.items():
        name = key.removeprefix(_METADATA)
        if name != key and name in artifact.manifest.raw:
            said = json.dumps(artifact.manifest.raw[name], default=_plain)
            if said != text:
                found.append(
                    f"{artifact.folder / MANIFEST}: expected '{name}' to be {plain(text[:200])} as the graph says, "
                    f"got {said[:200]}; the manifest was altered, copy the artifact again"
                )
    return found


def _plain(value: Any) -> Any:
    """The manifest's read-only mappings and lists as JSON has them."""
    return dict(value) if isinstance(value, Mapping) else list(value)


def _check_files(artifact: Artifact) -> tuple[FileCheck, ...]:
    checks = []
    for name, entry in artifact.manifest.files.items():
        problem = _problem(partial(artifact.check, name))
        checks.append(FileCheck(name=name, bytes=entry.size_bytes, problem=problem))
    for name, size in artifact.unlisted():
        where = artifact.folder / plain(name)
        problem = f"{where}: expected the files of the manifest alone, found this one; remove it"
        checks.append(FileCheck(name=plain(name), bytes=size, problem=problem))
    return tuple(checks)


def _check_config(artifact: Artifact) -> tuple[FileCheck, ...]:
    config = artifact.folder.parent / CONFIG
    # A version's folder may be moved about alone, and the first artifacts have no hash of what lies beside it.
    if "config_sha256" not in artifact.manifest.raw or not os.path.lexists(config):
        return ()
    problem = _problem(artifact.check_config)
    return (FileCheck(name=CONFIG, bytes=os.lstat(config).st_size, problem=problem),)


def _problem(check: Callable[[], object]) -> str | None:
    try:
        check()
    except ArtifactError as error:
        return str(error)
    return None


def _run(model: Model, golden: Golden, batch: int) -> dict[str, NDArray[np.float32]]:
    if batch > 1:
        parts = []
        for at in range(0, len(golden.context), batch):
            times = None if golden.time_s is None else golden.time_s[at : at + batch]
            parts.append(model.outputs(golden.context[at : at + batch], times))
        return {output: np.concatenate([part[output] for part in parts]) for output in parts[0]}
    each = [None] * len(golden.context) if golden.time_s is None else golden.time_s.tolist()
    parts = [model.outputs(window, time_s) for window, time_s in zip(golden.context, each, strict=True)]
    return {output: np.stack([part[output] for part in parts]) for output in parts[0]}


def _compare(
    artifact: Artifact,
    golden: Golden,
    found: Mapping[str, NDArray[np.float32]],
    what: Mapping[str, Any],
    *,
    output: str,
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
                f"level {artifact.manifest.levels[worst[2]]}, batch {what['batch']}{_where(what)}: "
                f"expected {want[worst]:.7g} within {allowed[worst]:.2g}, found {got[worst]:.7g}; "
                "do not serve this artifact here"
            )
        checks.append(
            ForecastCheck(
                **what,
                output=output,
                channel=channel,
                max_abs=_largest(difference),
                max_rel=_largest(difference / np.maximum(np.abs(want), scale)),
                used=float(ratio[worst]),
                problem=problem,
            )
        )
    return checks


def _where(what: Mapping[str, Any]) -> str:
    on = "" if what["device"] == "cpu" else f" on {what['device']}"
    return on if what["graph"] == GRAPH else f"{on} by {what['graph']}"


def _largest(values: NDArray[np.float64]) -> float:
    return float(values.max()) if np.isfinite(values).all() else math.inf
