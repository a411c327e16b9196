"""What an artifact says about itself: the content of manifest.json, schema 1. `runtime` reads it back."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from export.errors import ExportError
from export.triton import config_pbtxt
from training.checkpoint import Checkpoint

SCHEMA = 1
_SERIES = ("kind", "channels", "units", "clock", "bin_s", "step_s", "gap_s", "context", "horizon", "levels")
_FROM_CHECKPOINT = (*_SERIES, "prior", "trace", "scores")
_IN_GRAPH = ("schema", *_SERIES, "architecture", "precision", "exporter", "checkpoint_sha256")
_LIBRARIES = ("fcast", "numpy", "torch", "onnx", "onnxscript", "onnxslim", "onnxruntime", "onnxruntime-gpu")


def manifest_facts(
    checkpoint: Checkpoint, *, name: str, inputs: Sequence[str], outputs: Sequence[str], opset: int, exporter: str
) -> dict[str, Any]:
    """All keys but those of a particular version: `config_sha256`, `version`, `files` and `self_sha256`.

    Raises:
        ExportError: the checkpoint lacks a fact.
    """
    meta = checkpoint.meta
    try:
        known = {key: meta[key] for key in _FROM_CHECKPOINT}
        model = meta["model"]
    except KeyError as error:
        raise ExportError(
            f"checkpoint.json: expected the key {error}, got none; train again with this version of fcast"
        ) from error
    return {
        "schema": SCHEMA,
        "name": name,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        **known,
        "inputs": list(inputs),
        "outputs": list(outputs),
        "architecture": model["name"],
        "params": model["params"],
        "precision": "fp32",
        "opset": opset,
        "exporter": exporter,
        "checkpoint_sha256": checkpoint.sha256,
        "libraries": {"training": meta.get("libraries", {}), "export": _library_versions()},
    }


def graph_metadata(facts: Mapping[str, Any]) -> dict[str, str]:
    """What a lone model.onnx still says: JSON values, under keys that begin with `fcast.`."""
    return {f"fcast.{key}": json.dumps(facts[key]) for key in _IN_GRAPH}


def manifest_bytes(
    facts: Mapping[str, Any], *, version: int, folder: Path, files: Sequence[str], config: bytes | None = None
) -> bytes:
    """The manifest of a version, sealed with the hashes of its files and, last, its own.

    Args:
        facts: from `manifest_facts`.
        version: the number it will be published under.
        folder: where the files lie.
        files: their names.
        config: content of the config.pbtxt beside the folder; that of a new name if None.
    """
    config_sha256 = hashlib.sha256(config_pbtxt(facts).encode() if config is None else config).hexdigest()
    body: dict[str, Any] = {**facts, "config_sha256": config_sha256, "version": version, "files": {}}
    for file in files:
        content = (folder / file).read_bytes()
        body["files"][file] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    body["self_sha256"] = hashlib.sha256(canonical.encode()).hexdigest()
    return json_bytes(body)


def json_bytes(content: Mapping[str, Any]) -> bytes:
    """JSON for people: indented, ASCII, without NaN."""
    return (json.dumps(content, indent=1, ensure_ascii=True, allow_nan=False) + "\n").encode()


def _library_versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for library in _LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            continue
    return found
