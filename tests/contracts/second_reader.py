"""A second reader of artifacts, written from docs/artifact.md alone: it must import nothing of this project.

It stands for the one that somebody writes in another language. Where the page is not enough to write it, the page is
wrong.
"""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

TYPES = {"context": np.float32, "time_s": np.float64}


def newest(name: Path) -> Path:
    """Versions: whole numbers from 1 without leading zeros; readers take the largest."""
    versions = [int(p.name) for p in name.iterdir() if p.is_dir() and re.fullmatch("[1-9][0-9]*", p.name)]
    return name / str(max(versions))


def read_manifest(version: Path) -> dict[str, Any]:
    """manifest.json, whose last word is a hash of all the others."""
    raw: dict[str, Any] = json.loads((version / "manifest.json").read_text(encoding="utf-8"))
    if raw["schema"] > 1:
        raise ValueError("written by a newer fcast")
    body = {key: value for key, value in raw.items() if key != "self_sha256"}
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    if hashlib.sha256(text.encode("ascii")).hexdigest() != raw["self_sha256"]:
        raise ValueError("manifest.json was altered")
    return raw


def check_hashes(version: Path, manifest: dict[str, Any]) -> None:
    """Every file of the version, and the configuration beside it."""
    for name, entry in manifest["files"].items():
        if not re.fullmatch("[A-Za-z0-9][A-Za-z0-9._-]*", name):
            raise ValueError(f"{name} is no plain name")
        content = (version / name).read_bytes()
        if len(content) != entry["bytes"] or hashlib.sha256(content).hexdigest() != entry["sha256"]:
            raise ValueError(f"{name} was altered")
    if {path.name for path in version.iterdir()} != {*manifest["files"], "manifest.json"}:
        raise ValueError("a file that the manifest does not list")
    config = version.parent / "config.pbtxt"
    said = manifest.get("config_sha256")
    if said and config.exists() and hashlib.sha256(config.read_bytes()).hexdigest() != said:
        raise ValueError("config.pbtxt was altered")


def shapes(manifest: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Of each input and output, after the batch."""
    channels, levels = len(manifest["channels"]), len(manifest["levels"])
    every = {
        "context": (manifest["context"], channels),
        "time_s": (),
        "forecast": (manifest["horizon"], channels, levels),
        "demand": (manifest["horizon"], 2 * channels, levels),
    }
    return {name: every[name] for name in (*manifest["inputs"], *manifest.get("outputs", ["forecast"]))}


def read_golden(version: Path, manifest: dict[str, Any]) -> dict[str, np.ndarray]:
    """golden.npz: a zip of .npy arrays."""
    arrays = {}
    with zipfile.ZipFile(version / "golden.npz") as archive:
        for entry in archive.namelist():
            with archive.open(entry) as file:
                arrays[entry.removesuffix(".npy")] = np.lib.format.read_array(file, allow_pickle=False)
    wanted = shapes(manifest)
    if set(arrays) != set(wanted):
        raise ValueError(f"golden.npz has other arrays: {sorted(arrays)}")
    windows = len(arrays["context"])
    for name, array in arrays.items():
        if array.shape != (windows, *wanted[name]) or array.dtype != TYPES.get(name, np.float32):
            raise ValueError(f"golden.npz: {name} has another shape or type")
    return arrays


def run(version: Path, manifest: dict[str, Any], inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The graph's outputs by name."""
    session = onnxruntime.InferenceSession(version / "model.onnx", providers=["CPUExecutionProvider"])
    outputs = manifest.get("outputs", ["forecast"])
    return dict(zip(outputs, session.run(outputs, inputs), strict=True))


def run_by_steps(version: Path, manifest: dict[str, Any], inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The outputs of step.onnx after the last step of each window, taken in one by one from states of zeros."""
    session = onnxruntime.InferenceSession(version / "step.onnx", providers=["CPUExecutionProvider"])
    windows, steps, _ = inputs["context"].shape
    states = {name: np.zeros((1, windows, size), np.float32) for name, size in manifest["step"]["state"].items()}
    outputs = [*manifest["outputs"], *(f"next_{name}" for name in states)]
    found: dict[str, np.ndarray] = {}
    for i in range(steps):
        feed = {"context": inputs["context"][:, i : i + 1], **states}
        if "time_s" in inputs:
            feed["time_s"] = inputs["time_s"][:, None] - (steps - 1 - i) * manifest["bin_s"]
        found = dict(zip(outputs, session.run(outputs, feed), strict=True))
        states = {name: found.pop(f"next_{name}") for name in states}
    return found


def verify(version: Path) -> list[str]:
    """What differs on this machine; empty when the artifact is good here."""
    manifest = read_manifest(version)
    check_hashes(version, manifest)
    golden = read_golden(version, manifest)
    within = json.loads((version / "parity.json").read_text(encoding="utf-8"))["tolerances"]
    scale = np.array([within["channel_scale"][channel] for channel in manifest["channels"]])
    problems = []
    inputs = {key: golden[key] for key in manifest["inputs"]}
    results = [*run(version, manifest, inputs).items()]
    if "step" in manifest:
        results += run_by_steps(version, manifest, inputs).items()
    for name, found in results:
        expected = golden[name].astype(np.float64)
        # Along the channels of `demand`: the sums of all, then the peaks of all.
        scales = np.tile(scale, expected.shape[2] // len(scale))[:, None]
        allowed = within["atol"] * scales + within["rtol"] * np.abs(expected)
        difference = np.abs(found.astype(np.float64) - expected)
        if not (np.isfinite(difference) & (difference <= allowed)).all():
            problems.append(f"{name} differs by up to {difference.max()}")
        if not (np.diff(found, axis=3) >= 0).all() or (found < 0).any():
            problems.append(f"{name} is no quantile forecast")
    return problems
