"""The one way from a checkpoint to an artifact: export, prove, publish."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch

from export import parity
from export.attempts import first_accepted
from export.candidates import ONNX, TORCHSCRIPT
from export.exporters import AUTO, DEFAULT_OPSET, exporters_for
from export.gate import prove
from export.lean import lean
from export.manifest import graph_metadata, json_bytes, manifest_bytes, manifest_facts
from export.precision import FP32
from export.precision_gate import MAX_SKILL_LOSS, check_precision, convert_staged
from export.publish import check_name, publish, staging, write_file
from export.stages import OnStage, Stages
from export.step_gate import carried_skill
from export.step_onnx import step_facts, step_to_onnx
from export.to_onnx import to_onnx, with_fixed_batch
from export.to_torchscript import to_torchscript
from export.triton import MAX_BATCH, config_pbtxt
from runtime.manifest import STEP
from training.checkpoint import Checkpoint, load_checkpoint
from training.errors import ConfigError
from training.stateful import StatefulForecaster

STATIC = "model.batch{}.onnx"
GOLDEN, PARITY, MANIFEST = "golden.npz", "parity.json", "manifest.json"
FORMATS = ("onnx", "torchscript")
_GOLDEN_WINDOWS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A published artifact.

    Attributes:
        path: `<out>/<name>/<version>`.
        files: name -> size in bytes.
        opset: ONNX operator set of model.onnx.
        exporter: what made it, `legacy` or `dynamo`.
        rejected: exporters that `auto` tried before -> what was wrong with what they gave.
        checks: the comparisons it passed; in another precision than fp32, those of the graph it was converted from.
        precision: what the conversion cost, as in parity.json; None for fp32.
        carried: of a stateful model what its state is worth, as in parity.json; else None.
        stages: seconds by stage: `export`, `gate`, `publish`.
        seconds: from start to end.
    """

    path: Path
    name: str
    version: int
    files: dict[str, int]
    opset: int
    exporter: str
    rejected: dict[str, str]
    checks: list[parity.Check]
    precision: dict[str, Any] | None
    carried: dict[str, Any] | None
    stages: dict[str, float]
    seconds: float


def export_checkpoint(
    path: str | Path,
    *,
    formats: Sequence[str] = ("onnx",),
    out: str | Path = "artifacts",
    name: str | None = None,
    opset: int = DEFAULT_OPSET,
    exporter: str = AUTO,
    static_batch: int | None = None,
    precision: str = FP32,
    max_skill_loss: float = MAX_SKILL_LOSS,
    atol: float = parity.ATOL,
    rtol: float = parity.RTOL,
    on_stage: OnStage | None = None,
) -> Published:
    """Export a checkpoint, prove it on real windows and publish it.

    Args:
        path: the run folder that `fcast-train` wrote.
        formats: "onnx" and "torchscript"; model.onnx is always there, since the runtime serves it, and
            "torchscript" adds model.pt.
        out: the repository of artifacts; made if missing.
        name: the artifact's name; the architecture's if None, with `-fp16` or `-int8` in these precisions.
        opset: ONNX operator set, 17 to 20 with the exporter legacy, 18 to 21 with dynamo.
        exporter: "legacy", "dynamo", or "auto" for legacy and, where that fails or its graph does not pass the gate,
            dynamo, with a warning.
        static_batch: also write `model.batchN.onnx`, the same graph for batches of N alone.
        precision: "fp32", or "fp16" or "int8" for a converted graph; see export/precision.py.
        max_skill_loss: how much wQL on validation windows may rise by a conversion, as a share.
        atol: absolute tolerance in units of each channel's mean.
        rtol: relative tolerance.
        on_stage: told what is being done.

    Returns:
        Where it is, and what was found.

    Raises:
        CheckpointError: the run folder is missing, damaged or unfinished.
        ConfigError: a format, name, opset, exporter, batch or tolerance is not possible.
        ParityError: an exported form forecasts something else.
        ExportError: the model cannot be exported, or the artifact cannot be published. Nothing is left behind.
    """
    started = perf_counter()
    unknown = sorted(set(formats) - set(FORMATS))
    if unknown:
        raise ConfigError(f"--format: expected {' or '.join(FORMATS)}, got {unknown[0]}; correct it")
    exporters = exporters_for(exporter, opset)
    if static_batch is not None and not 1 <= static_batch <= MAX_BATCH:
        raise ConfigError(f"--static-batch: expected 1 to {MAX_BATCH}, got {static_batch}; correct it")
    check_precision(precision, formats=formats, static_batch=static_batch, max_skill_loss=max_skill_loss)
    checkpoint = load_checkpoint(path)
    if precision != FP32 and isinstance(checkpoint.model, StatefulForecaster):
        raise ConfigError(
            f"--precision: expected {FP32} for a stateful model, got {precision}; train one without state"
        )
    # A host takes the newest version of a name: it must not change precision by accident.
    suffix = "" if precision == FP32 else f"-{precision}"
    name = check_name(checkpoint.meta["model"]["name"] + suffix if name is None else name)
    inputs = _real_inputs(checkpoint)
    within = parity.tolerance(inputs["context"], rtol=rtol, atol=atol)
    # A batch of one would let an exporter take the batch for a constant.
    example = {key: torch.from_numpy(np.resize(a, (2, *a.shape[1:]))) for key, a in inputs.items()}
    served = lean(checkpoint.model)
    stages = Stages(on_stage)

    out = Path(out)
    with staging(out) as stage:
        staged = stage / "version"
        with stages.stage("export", "recording the model"):
            golden = _golden(checkpoint, inputs)
            write_file(staged / GOLDEN, _npz(golden))
            if "torchscript" in formats:
                write_file(staged / TORCHSCRIPT, to_torchscript(served, example))
        outputs = [key for key in golden if key not in inputs]

        def attempt(exporter: str) -> tuple[dict[str, Any], list[parity.Check]]:
            facts = manifest_facts(
                checkpoint, name=name, inputs=list(inputs), outputs=outputs, opset=opset, exporter=exporter
            )
            model = checkpoint.model
            if isinstance(model, StatefulForecaster):
                facts["step"] = step_facts(model)
            with stages.stage("export", f"exporting ONNX with {exporter}"):
                graph = to_onnx(served, example, opset=opset, metadata=graph_metadata(facts), exporter=exporter)
                write_file(staged / ONNX, graph)
                if isinstance(model, StatefulForecaster):
                    step = step_to_onnx(model, opset=opset, metadata=graph_metadata(facts))
                    write_file(staged / STEP, step)
                if static_batch is not None:
                    facts["static_batch"] = static_batch
                    write_file(staged / STATIC.format(static_batch), with_fixed_batch(graph, static_batch))
            with stages.stage("gate", f"comparing what {exporter} made with the trained model"):
                _seal(facts, staged, 1)  # the gate loads what is staged as a host would
                return facts, prove(checkpoint, staged, inputs, within=within)

        (facts, checks), rejected = first_accepted(exporters, attempt, where=staged)
        report = parity.parity_json(checks, within=within, channels=facts["channels"], windows=len(inputs["context"]))
        if isinstance(checkpoint.model, StatefulForecaster):
            report["carried"] = carried_skill(checkpoint)
        cost: dict[str, Any] | None = None
        if precision != FP32:
            facts["precision"] = precision
            with stages.stage("precision", f"converting to {precision} and measuring what it costs"):
                golden, measured = convert_staged(
                    checkpoint,
                    staged,
                    inputs,
                    precision=precision,
                    max_skill_loss=max_skill_loss,
                    golden_most=_GOLDEN_WINDOWS,
                    seal=lambda: _seal(facts, staged, 1),
                )
                report["fp32_tolerances"] = report["tolerances"]
                report["tolerances"] = report["tolerances"] | measured["tolerances"]
                cost = measured["precision"]
                # What a clock measured is told and not kept: the same checkpoint gives the same artifact.
                report["precision"] = {key: value for key, value in cost.items() if key != "latency_ratio"}
                write_file(staged / GOLDEN, _npz(golden))
        with stages.stage("publish", "publishing"):
            write_file(staged / PARITY, json_bytes(report | ({"rejected": rejected} if rejected else {})))
            folder, version = publish(
                staged, out=out, name=name, config=config_pbtxt(facts), seal=partial(_seal, facts)
            )
            sizes = {file.name: file.stat().st_size for file in sorted(folder.iterdir())}
    return Published(
        path=folder,
        name=name,
        version=version,
        files=sizes,
        opset=opset,
        exporter=facts["exporter"],
        rejected=rejected,
        checks=checks,
        precision=cost,
        carried=report.get("carried"),
        stages=stages.seconds,
        seconds=perf_counter() - started,
    )


def _seal(facts: dict[str, Any], folder: Path, version: int, beside: bytes | None = None) -> None:
    """Write the manifest of what lies in a folder."""
    listed = sorted(child.name for child in folder.iterdir() if child.name != MANIFEST)
    content = manifest_bytes(facts, version=version, folder=folder, files=listed, config=beside)
    write_file(folder / MANIFEST, content)


def _real_inputs(checkpoint: Checkpoint) -> dict[str, np.ndarray]:
    """The graph's inputs by name, in the order of forward's arguments, for the checkpoint's real windows."""
    windows = checkpoint.windows
    inputs: dict[str, Any] = {"context": np.ascontiguousarray(windows["context"], np.float32)}
    if checkpoint.model.takes_time:
        inputs["time_s"] = np.ascontiguousarray(windows["time_s"], np.float64)
    return inputs


def _golden(checkpoint: Checkpoint, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Some of the real windows, and what the trained model gives for them."""
    available = len(inputs["context"])
    picked = np.linspace(0, available - 1, min(_GOLDEN_WINDOWS, available)).round().astype(np.int64)
    windows = {key: array[picked] for key, array in inputs.items()}
    return windows | parity.torch_forecast(checkpoint.model)(*windows.values())


def _npz(arrays: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # plain numbers: nothing is pickled
    return buffer.getvalue()
