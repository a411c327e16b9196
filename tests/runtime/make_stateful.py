"""Build the small stateful artifacts of these tests: `python -m tests.runtime.make_stateful`. Needs onnx.

By hand as those of make_artifacts.py: in log1p space a running mean, as sums and weights in one recurrent node, and a
GRU over it; from the last of each, an offset per step, channel and level. The same nodes with states are the step graph
and without them that of windows.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from export.triton import config_pbtxt
from runtime import Predictor
from runtime.manifest import UNITS
from tests.runtime.make_artifacts import HERE, LEVELS, seal, serialize, write_npz

DAY_S = 86400.0


def main() -> None:
    rng = np.random.default_rng(11)
    tokens = ("request_tokens", "response_tokens")
    for version, hidden in ((1, 4), (2, 5)):
        build("carried", version, hidden=hidden, channels=("requests", *tokens), context=6, bin_s=60.0, rng=rng)
    build("carried-requests", 1, hidden=4, channels=("inter_arrival_s", *tokens), context=8, bin_s=None, rng=rng)


def build(
    name: str,
    version: int,
    *,
    hidden: int,
    channels: tuple[str, ...],
    context: int,
    bin_s: float | None,
    rng: np.random.Generator,
) -> None:
    folder = HERE / name / str(version)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    horizon, load = 3, bin_s is not None
    offsets = np.linspace(-1.2, 1.6, len(LEVELS)) * np.linspace(1.0, 1.3, horizon)[:, None, None]
    weights = {
        "offsets": np.repeat(offsets, len(channels), axis=1).astype(np.float32),
        "gru_w": rng.normal(0, 0.3, (1, 3 * hidden, len(channels))).astype(np.float32),
        "gru_r": rng.normal(0, 0.3, (1, 3 * hidden, hidden)).astype(np.float32),
        "out": rng.normal(0, 0.3, (hidden, len(channels))).astype(np.float32),
    }
    facts: dict[str, Any] = {"context": context, "bin_s": bin_s, "weights": weights}
    (folder / "model.onnx").write_bytes(graph(step=False, **facts))
    (folder / "step.onnx").write_bytes(graph(step=True, **facts))
    scale = np.array([20.0 if load else 2.0, 400.0, 150.0], np.float32)
    windows = (rng.gamma(2.0, 0.5, (6, context, len(channels))) * scale).astype(np.float32)
    prior = np.quantile(windows.reshape(-1, len(channels)), LEVELS, axis=0).T
    manifest = {
        "schema": 1,
        "name": name,
        "version": version,
        "created": "2026-11-26T00:00:00+00:00",
        "kind": "load" if load else "requests",
        "channels": list(channels),
        "units": [UNITS[c] for c in channels],
        "clock": "relative",
        "bin_s": bin_s,
        "step_s": bin_s,
        "gap_s": 21600.0,
        "context": context,
        "horizon": horizon,
        "levels": list(LEVELS),
        "inputs": ["context", "time_s"] if load else ["context"],
        "outputs": ["forecast", "demand"] if load else ["forecast"],
        "architecture": "by-hand",
        "params": {},
        "precision": "fp32",
        "opset": 20,
        "exporter": "tests.runtime.make_stateful",
        "prior": np.round(prior, 4).tolist(),
        "checkpoint_sha256": "0" * 64,
        "trace": {},
        "scores": {},
        "libraries": {"export": {"onnx": onnx.__version__, "numpy": np.__version__}},
        "step": {"state": {"means": 2 * len(channels), "hidden": hidden}},
        "files": {},
    }
    config = folder.parent / "config.pbtxt"
    if not config.exists() or version == 1:
        config.write_text(config_pbtxt(manifest))
    manifest["config_sha256"] = hashlib.sha256(config.read_bytes()).hexdigest()
    mean = windows.mean(axis=(0, 1), dtype=np.float64)
    parity = {"tolerances": {"rtol": 1e-4, "atol": 1e-5, "channel_scale": dict(zip(channels, mean, strict=True))}}
    (folder / "parity.json").write_text(json.dumps(parity, indent=1) + "\n")
    golden = {"context": windows} | ({"time_s": 60.0 * rng.integers(0, 10_000, 6)} if load else {})
    write_npz(folder / "golden.npz", golden)
    seal(folder, manifest)
    outputs = Predictor(folder, device="cpu").predict_outputs(windows, golden.get("time_s"))
    write_npz(folder / "golden.npz", golden | outputs)
    seal(folder, manifest)


def graph(*, step: bool, context: int, bin_s: float | None, weights: dict[str, np.ndarray]) -> bytes:
    horizon, channels, levels = weights["offsets"].shape
    hidden, load = len(weights["out"]), bin_s is not None
    eye = np.eye(channels, dtype=np.float32)
    decay = np.tile(np.linspace(0.6, 0.9, channels, dtype=np.float32), 2)
    constants = weights | {
        "one": np.float32(1),
        "zero": np.float32(0),
        "rnn_w": np.concatenate([eye, 0 * eye])[None],
        "rnn_r": np.diag(decay)[None],
        "rnn_b": np.concatenate([np.zeros(channels), np.ones(channels), np.zeros(2 * channels)])[None].astype("f4"),
        "axis1": np.array([1], np.int64),
        "axis0": np.array([0], np.int64),
        "axes": np.array([1, 3], np.int64),
        "halves": np.array([channels, channels], np.int64),
        "last": np.int64(-1),
        "day_s": np.float64(DAY_S),
        "turn": np.float32(2 * np.pi),
        "wave": np.float32(0.2),
        "column": np.array([-1, 1, 1, 1], np.int64),
        "cancel": np.linspace(1.1, 0.8, levels, dtype=np.float32),
        "largest": np.linspace(1.2, 1.05, levels, dtype=np.float32),
        "one_axis": np.int64(1),
    }
    states = ("means", "hidden") if step else ("", "")
    nodes: list[tuple[str, list[str], list[str], dict[str, Any]]] = [
        ("Transpose", ["context"], ["rows"], {"perm": [1, 0, 2]}),
        ("Add", ["rows", "one"], ["rows1"], {}),
        ("Log", ["rows1"], ["x"], {}),
        (
            "RNN",
            ["x", "rnn_w", "rnn_r", "rnn_b", "", states[0]],
            ["y4", "next_means"],
            {"hidden_size": 2 * channels, "activations": ["Relu"]},
        ),
        ("Squeeze", ["y4", "axis1"], ["y"], {}),
        ("Split", ["y", "halves"], ["sums", "weights"], {"axis": 2}),
        ("Div", ["sums", "weights"], ["mean"], {}),
        ("GRU", ["mean", "gru_w", "gru_r", "", "", states[1]], ["", "next_hidden"], {"hidden_size": hidden}),
        ("Squeeze", ["next_hidden", "axis0"], ["h"], {}),
        ("MatMul", ["h", "out"], ["moved"], {}),
        ("Gather", ["mean", "last"], ["level"], {"axis": 0}),
        ("Add", ["level", "moved"], ["at"], {}),
        ("Unsqueeze", ["at", "axes"], ["at4"], {}),
        ("Add", ["at4", "offsets"], ["plain"], {}),
    ]
    if load:
        if step:
            nodes.append(("Gather", ["time_s", "last"], ["now_s"], {"axis": 1}))
        nodes += [
            ("Div", ["now_s" if step else "time_s", "day_s"], ["days"], {}),
            ("Floor", ["days"], ["midnight"], {}),
            ("Sub", ["days", "midnight"], ["of_day64"], {}),
            ("Cast", ["of_day64"], ["of_day"], {"to": TensorProto.FLOAT}),
            ("Mul", ["of_day", "turn"], ["angle"], {}),
            ("Sin", ["angle"], ["sine"], {}),
            ("Mul", ["sine", "wave"], ["daily"], {}),
            ("Reshape", ["daily", "column"], ["daily4"], {}),
            ("Add", ["plain", "daily4"], ["log"], {}),
        ]
    nodes += [
        ("Exp", ["log" if load else "plain"], ["e"], {}),
        ("Sub", ["e", "one"], ["raw"], {}),
        ("Max", ["raw", "zero"], ["forecast"], {}),
    ]
    if load:
        nodes += [
            ("CumSum", ["forecast", "one_axis"], ["running"], {}),
            ("Mul", ["running", "cancel"], ["totals"], {}),
            ("Mul", ["forecast", "largest"], ["peaks"], {}),
            ("Concat", ["totals", "peaks"], ["demand"], {"axis": 2}),
        ]
    sizes = {"means": 2 * channels, "hidden": hidden} if step else {}

    def end(name: str, shape: list[Any], kind: int = TensorProto.FLOAT) -> Any:
        return helper.make_tensor_value_info(name, kind, shape)

    inputs = [end("context", ["batch", "steps" if step else context, channels])]
    if load:
        inputs.append(end("time_s", ["batch", "steps"] if step else ["batch"], TensorProto.DOUBLE))
    inputs += [end(name, [1, "batch", size]) for name, size in sizes.items()]
    outputs = [end("forecast", ["batch", horizon, channels, levels])]
    if load:
        outputs.append(end("demand", ["batch", horizon, 2 * channels, levels]))
    outputs += [end(f"next_{name}", [1, "batch", size]) for name, size in sizes.items()]
    used = {name for _, given, _, _ in nodes for name in given}
    return bytes(
        serialize(
            [helper.make_node(op, given, found, **attributes) for op, given, found, attributes in nodes],
            inputs,
            outputs,
            [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items() if k in used],
        )
    )


if __name__ == "__main__":
    Path(HERE).mkdir(exist_ok=True)
    main()
