"""Publish something small; apart from the tests, so that a child process starts without pytest."""

from __future__ import annotations

from pathlib import Path

from export.publish import publish, staging, write_file

CONFIG = 'input [\n  { name: "context" data_type: TYPE_FP32 dims: [ 8, 3 ] }\n]\n'


def publish_one(out: Path, *, name: str = "gru", config: str = CONFIG) -> tuple[Path, int]:
    with staging(out) as stage:
        staged = stage / "version"
        write_file(staged / "model.onnx", b"weights")
        return publish(
            staged,
            out=out,
            name=name,
            config=config,
            seal=lambda folder, version, _: write_file(folder / "manifest.json", str(version).encode()),
        )


def visible(out: Path) -> dict[str, str]:
    """Every published file and its content, without hidden names."""
    files = (path for path in out.rglob("*") if path.is_file())
    shown = (path for path in files if not any(part.startswith(".") for part in path.relative_to(out).parts))
    return {str(path.relative_to(out)): path.read_text() for path in shown}
