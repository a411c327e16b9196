"""Build the small artifacts of these tests: `python -m tests.runtime.make_artifacts`. Needs onnx; the tests do not.

Those of stateful models come after it, from make_stateful.py.

Each graph is written by hand: in log1p space, 0.7 x mean of the window + 0.3 x its last step, plus an offset per step,
channel and level; with a clock also a daily wave. It depends on the order of the window and, where it is there, time_s.
Aggregates are shares of the running sums, and of the steps.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from export.triton import config_pbtxt
from runtime import Predictor
from runtime.manifest import UNITS, self_sha256

HERE = Path(__file__).parent / "artifacts"
LEVELS = (0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)


def main() -> None:
    rng = np.random.default_rng(7)
    shutil.rmtree(HERE, ignore_errors=True)
    names = ("inter_arrival_s", "request_tokens", "response_tokens")
    for version in (1, 2):
        build("requests", version, kind="requests", channels=names, context=16, horizon=4, rng=rng)
    names = ("requests", "request_tokens", "response_tokens")
    build("load", 1, kind="load", channels=names, context=12, horizon=3, bin_s=60.0, clock=True, rng=rng)
    build("counts", 1, kind="load", channels=names[:1], context=4, horizon=2, bin_s=10.0, step_s=60.0, rng=rng)
    # The others have no key `outputs`, as the artifacts from before there was it.
    steps = {"bin_s": 10.0, "step_s": 30.0}
    build("demand", 1, kind="load", channels=names, context=10, horizon=4, demand=True, rng=rng, **steps)
    (HERE / "external.onnx").write_bytes(external_graph())


def build(
    name: str,
    version: int,
    *,
    kind: str,
    channels: tuple[str, ...],
    context: int,
    horizon: int,
    rng: np.random.Generator,
    bin_s: float | None = None,
    step_s: float | None = None,
    clock: bool = False,
    demand: bool = False,
) -> None:
    folder = HERE / name / str(version)
    folder.mkdir(parents=True)
    scale = np.array([2.0 if kind == "requests" else 20.0, 400.0, 150.0], np.float32)[: len(channels)]
    windows = (rng.gamma(2.0, 0.5, (6, context, len(channels))) * scale).astype(np.float32)
    time_s = 1.7e9 + 60.0 * rng.integers(0, 10_000, 6)
    offsets = np.linspace(-1.2, 1.6, len(LEVELS)) * np.linspace(1.0, 1.3, horizon)[:, None, None]
    offsets = np.repeat(offsets, len(channels), axis=1).astype(np.float32)
    (folder / "model.onnx").write_bytes(graph(context, offsets, clock, demand))
    prior = np.quantile(windows.reshape(-1, len(channels)), LEVELS, axis=0).T
    manifest = {
        "schema": 1,
        "name": name,
        "version": version,
        "created": "2026-11-23T00:00:00+00:00",
        "kind": kind,
        "channels": list(channels),
        "units": [UNITS[c] for c in channels],
        "clock": "relative" if clock else "epoch",  # the tests' times begin anywhere
        "bin_s": bin_s,
        "step_s": step_s or bin_s,
        "gap_s": 21600.0,
        "context": context,
        "horizon": horizon,
        "levels": list(LEVELS),
        "inputs": ["context", "time_s"] if clock else ["context"],
        **({"outputs": ["forecast", "demand"]} if demand else {}),
        "architecture": "by-hand",
        "params": {},
        "precision": "fp32",
        "opset": 20,
        "exporter": "tests.runtime.make_artifacts",
        "prior": np.round(prior, 4).tolist(),
        "checkpoint_sha256": "0" * 64,
        "trace": {},
        "scores": {},
        "libraries": {"export": {"onnx": onnx.__version__, "numpy": np.__version__}},
        "files": {},
    }
    config = config_pbtxt(manifest)
    (folder.parent / "config.pbtxt").write_text(config)
    manifest["config_sha256"] = hashlib.sha256(config.encode()).hexdigest()
    mean = windows.mean(axis=(0, 1), dtype=np.float64)
    parity = {"tolerances": {"rtol": 1e-4, "atol": 1e-5, "channel_scale": dict(zip(channels, mean, strict=True))}}
    (folder / "parity.json").write_text(json.dumps(parity, indent=1) + "\n")
    golden = {"context": windows, **({"time_s": time_s} if clock else {})}
    write_npz(folder / "golden.npz", golden)
    seal(folder, manifest)
    outputs = Predictor(folder, device="cpu").predict_outputs(windows, time_s if clock else None)
    write_npz(folder / "golden.npz", golden | outputs)
    seal(folder, manifest)


def seal(folder: Path, manifest: dict) -> None:
    """Write the manifest with the hashes of what lies in the folder."""
    manifest["files"] = {
        path.name: {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "bytes": path.stat().st_size}
        for path in sorted(folder.iterdir())
        if path.name != "manifest.json"
    }
    manifest["self_sha256"] = self_sha256(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")


def write_npz(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """An .npz whose bytes depend on the arrays alone (numpy's own holds the time of day)."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for key, array in arrays.items():
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, array, allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{key}.npy", (1980, 1, 1, 0, 0, 0)), buffer.getvalue())


def graph(context: int, offsets: np.ndarray, clock: bool, demand: bool) -> bytes:
    horizon, channels, levels = offsets.shape
    constants = {
        "one": np.float32(1),
        "zero": np.float32(0),
        "w_mean": np.float32(0.7),
        "w_last": np.float32(0.3),
        "axis": np.array([1], np.int64),
        "axes": np.array([1, 3], np.int64),
        "one_axis": np.int64(1),
        "from": np.array([context - 1], np.int64),
        "to": np.array([context], np.int64),
        "offsets": offsets,
        "day_s": np.float64(86400),
        "turn": np.float32(2 * np.pi),
        "wave": np.float32(0.2),
        "column": np.array([-1, 1, 1, 1], np.int64),
        "cancel": np.linspace(1.1, 0.8, levels, dtype=np.float32),  # highs and lows of the steps partly do
        "largest": np.linspace(1.2, 1.05, levels, dtype=np.float32),
    }
    nodes = [
        ("Add", ["context", "one"], "c1", {}),
        ("Log", ["c1"], "x", {}),
        ("ReduceMean", ["x", "axis"], "mean", {"keepdims": 0}),
        ("Slice", ["x", "from", "to", "axis"], "tail", {}),
        ("Squeeze", ["tail", "axis"], "last", {}),
        ("Mul", ["mean", "w_mean"], "m", {}),
        ("Mul", ["last", "w_last"], "l", {}),
        ("Add", ["m", "l"], "level", {}),
        ("Unsqueeze", ["level", "axes"], "level4", {}),
        ("Add", ["level4", "offsets"], "plain", {}),
    ]
    if clock:
        nodes += [
            ("Div", ["time_s", "day_s"], "days", {}),
            ("Floor", ["days"], "midnight", {}),
            ("Sub", ["days", "midnight"], "of_day64", {}),
            ("Cast", ["of_day64"], "of_day", {"to": TensorProto.FLOAT}),
            ("Mul", ["of_day", "turn"], "angle", {}),
            ("Sin", ["angle"], "sine", {}),
            ("Mul", ["sine", "wave"], "daily", {}),
            ("Reshape", ["daily", "column"], "daily4", {}),
            ("Add", ["plain", "daily4"], "y", {}),
        ]
    last = "y" if clock else "plain"
    nodes += [("Exp", [last], "e", {}), ("Sub", ["e", "one"], "raw", {}), ("Max", ["raw", "zero"], "forecast", {})]
    if demand:
        nodes += [
            ("CumSum", ["forecast", "one_axis"], "running", {}),
            ("Mul", ["running", "cancel"], "sums", {}),
            ("Mul", ["forecast", "largest"], "peaks", {}),
            ("Concat", ["sums", "peaks"], "demand", {"axis": 2}),
        ]
    used = {name for _, inputs, _, _ in nodes for name in inputs}
    inputs = [helper.make_tensor_value_info("context", TensorProto.FLOAT, ["batch", context, channels])]
    if clock:
        inputs.append(helper.make_tensor_value_info("time_s", TensorProto.DOUBLE, ["batch"]))
    wide = {"forecast": channels, **({"demand": 2 * channels} if demand else {})}
    outputs = [
        helper.make_tensor_value_info(k, TensorProto.FLOAT, ["batch", horizon, c, levels]) for k, c in wide.items()
    ]
    return serialize(
        [helper.make_node(op, ins, [out], **attributes) for op, ins, out, attributes in nodes],
        inputs,
        outputs,
        [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items() if k in used],
    )


def external_graph() -> bytes:
    """A graph that wants its weight from the file weight.bin of the working directory."""
    weight = numpy_helper.from_array(np.arange(300, dtype=np.float32), "weight")
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "weight.bin"), ("offset", "0"), ("length", "1200")):
        entry = weight.external_data.add()
        entry.key, entry.value = key, value
    value = helper.make_tensor_value_info("context", TensorProto.FLOAT, [300])
    output = helper.make_tensor_value_info("forecast", TensorProto.FLOAT, [300])
    return serialize([helper.make_node("Add", ["context", "weight"], ["forecast"])], [value], [output], [weight])


def serialize(nodes: list, inputs: list, outputs: list, constants: list) -> bytes:
    body = helper.make_graph(nodes, "fcast", inputs, outputs, constants)
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return model.SerializeToString()


if __name__ == "__main__":
    main()
