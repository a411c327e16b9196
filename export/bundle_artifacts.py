"""Artifacts that travel in a bundle: whole, and with an opset that the bundle's runtime knows."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from export.bundle_sets import WheelSet
from export.errors import ExportError
from runtime.artifact import CONFIG, Artifact, open_artifact
from runtime.errors import FcastError

_NEWEST_EXPORTED = 20
"""What fcast-export writes without --opset; every onnxruntime in the table knows it."""


def open_artifacts(paths: Sequence[str], chosen: WheelSet) -> list[Artifact]:
    """Find and check artifacts.

    Args:
        paths: of each, `artifacts/NAME` or `artifacts/NAME/VERSION`.
        chosen: what will run them.

    Raises:
        ExportError: one is damaged, has an opset that the runtime does not know, or stands there twice.
    """
    found: dict[tuple[str, int], Artifact] = {}
    for path in paths:
        try:
            artifact = open_artifact(path)
            for name in artifact.manifest.files:
                artifact.check(name)
            artifact.check_config()
        except FcastError as error:
            raise ExportError(str(error)) from error
        opset, name = artifact.manifest.raw["opset"], artifact.manifest.name
        if opset > chosen.opset:
            raise ExportError(
                f"{artifact.folder}: expected opset {chosen.opset} or lower, which onnxruntime{chosen.onnxruntime} "
                f"knows, got {opset}; fcast-export runs/{name} --name {name} "
                f"--opset {min(_NEWEST_EXPORTED, chosen.opset)}"
            )
        found[name, artifact.manifest.version] = artifact
    return list(found.values())


def copy_artifacts(artifacts: Sequence[Artifact], into: Path) -> None:
    """Lay artifacts out as a repository; only the files that their manifests list."""
    into.mkdir()
    for artifact in artifacts:
        target = into / artifact.manifest.name / str(artifact.manifest.version)
        target.mkdir(parents=True, exist_ok=True)
        for name in (*artifact.manifest.files, "manifest.json"):
            shutil.copyfile(artifact.folder / name, target / name)
        shutil.copyfile(artifact.folder.parent / CONFIG, target.parent / CONFIG)
