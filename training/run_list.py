"""What a folder of runs holds: every run, how far it came, how good it is, and which is best on validation."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from training.baselines import NAMES as BASELINES
from training.checkpoint import JUDGED, LAST, META, WEIGHTS, WINDOWS, read_meta
from training.config import RunConfig
from training.errors import CheckpointError, ConfigError
from training.metrics_log import METRICS
from training.report import JSON
from training.run import REFIT

FINISHED, UNFINISHED, DAMAGED = "finished", "unfinished", "damaged"
_MARKS = (META, LAST, WEIGHTS, JUDGED, METRICS)


def list_runs(out: Path) -> list[dict[str, Any]]:
    """Every run in a folder and the folders in it, as JSON values.

    Returns:
        `name` (its path in the folder), `folder`, `state` (finished, unfinished or damaged), `problem` (what is wrong
        with it, or None), `changed_s` (since 1970), `size_bytes`; and as far as they are known `model`, `baseline`
        (whether the model is one), `data` (settings), `trace` (`fingerprint`, `sources`), `epochs` (`done`, `of`),
        `validation` and `test` (mean wQL; the former is the best so far of an unfinished run), `best_baseline` (by
        test, `name`, `validation` and `test`) and `versus` (test against it, relative). Comparable runs stand together,
        best validation first.

    Raises:
        ConfigError: there is no such folder.
    """
    if not out.is_dir():
        raise ConfigError(f"{out}: expected a folder of runs, got none; correct the path")
    return sorted((_row(folder, out) for folder in _run_folders(out)), key=_order)


def best_run(rows: Sequence[dict[str, Any]], out: Path) -> dict[str, Any]:
    """The finished run that is best on validation; a simple baseline, which was tuned on it, only among its like.

    Raises:
        CheckpointError: no run is finished, or they are of several traces or data settings, and so not comparable.
    """
    finished = [row for row in rows if row["state"] == FINISHED]
    candidates = [row for row in finished if not row["baseline"]] or finished
    if not candidates:
        raise CheckpointError(f"{out}: expected a finished run, got {len(rows)} others; see fcast-train --list")
    groups = {json.dumps(_group(row), sort_keys=True) for row in candidates}
    if len(groups) > 1:
        names = ", ".join(row["name"] for row in candidates)
        raise CheckpointError(
            f"{out}: expected runs on one trace with the same data settings, whose scores compare, got {len(groups)} "
            f"kinds among {names}; give the folder of one kind, or one run"
        )
    return min(candidates, key=lambda row: float(row["validation"]))


def _group(row: dict[str, Any]) -> list[Any]:
    """Equal for runs whose scores compare."""
    return [(row.get("trace") or {}).get("fingerprint", ""), row.get("data") or {}]


def _order(row: dict[str, Any]) -> tuple[Any, ...]:
    score = row.get("validation")
    group = json.dumps(_group(row), sort_keys=True)
    return (row["state"] == DAMAGED, group, score is None, score or 0.0, row["name"])


def _run_folders(out: Path) -> Iterator[Path]:
    for path, folders, files in os.walk(out):
        if any(name in files for name in _MARKS):
            folders.clear()
            yield Path(path)
        else:
            folders[:] = [name for name in folders if not name.startswith(".")]


def _row(folder: Path, out: Path) -> dict[str, Any]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    row: dict[str, Any] = {
        "name": folder.relative_to(out).as_posix() if folder != out else folder.resolve().name,
        "folder": os.fspath(folder),
        "state": FINISHED,
        "problem": None,
        "changed_s": max((path.stat().st_mtime for path in files), default=0.0),
        "size_bytes": sum(path.stat().st_size for path in files),
    }
    try:
        return row | (_finished(folder) if (folder / META).exists() else _unfinished(folder))
    except (CheckpointError, ConfigError, OSError) as error:
        return row | {"state": DAMAGED, "problem": str(error)}
    except (ValueError, KeyError, TypeError, AttributeError) as error:  # facts that can't be those of a run
        return row | {"state": DAMAGED, "problem": f"{folder}: expected the facts of a run, got none for {error}"}


def _finished(folder: Path) -> dict[str, Any]:
    meta = read_meta(folder)
    for name in (WEIGHTS, WINDOWS):
        if not (folder / name).exists():
            raise CheckpointError(f"{folder / name}: expected a file of tensors, got none; train again")
        found = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        if found != meta["sha256"][name]:
            raise CheckpointError(
                f"{folder / name}: expected sha256 {meta['sha256'][name][:12]}..., got {found[:12]}...; train again"
            )
    config = RunConfig.from_dict(meta["config"])
    name = meta["model"]["name"]
    parts = [part for part in ("validation", "test") if part in meta["scores"]]
    scores = {part: float(meta["scores"][part]["wql"]["mean"]) for part in parts}
    row = {
        "model": name,
        "baseline": name in BASELINES,
        "data": _data(config),
        "trace": {key: meta["trace"][key] for key in ("fingerprint", "sources")},
        **scores,
    }
    if "epochs_trained" in meta["training"]:
        row["epochs"] = {"done": meta["training"]["epochs_trained"], "of": config.fit.epochs}
    if (bar := _best_baseline(folder.parent, meta)) and "test" in scores:
        row |= {"best_baseline": bar, "versus": scores["test"] / bar["test"] - 1 if bar["test"] else None}
    return row


def _best_baseline(folder: Path, meta: dict[str, Any]) -> dict[str, Any] | None:
    """The baseline that is best on test in the report of a folder of runs, if that is about the data of this run."""
    try:
        report = json.loads((folder / JSON).read_text(encoding="utf-8"))
        if any(report[part] != meta[part] for part in ("trace", "split", "kind")):
            return None
        row = next(row for row in report["baselines"] if row["name"] == report["best_baseline"])
        return {"name": row["name"]} | {part: float(row[part]["wql"]["mean"]) for part in ("validation", "test")}
    except (OSError, ValueError, KeyError, TypeError, StopIteration):
        return None


def _data(config: RunConfig) -> dict[str, Any]:
    """Data settings as JSON values."""
    found: dict[str, Any] = json.loads(json.dumps(config.to_dict()["data"]))
    return found


def _unfinished(folder: Path) -> dict[str, Any]:
    if not (folder / LAST).exists():
        return {"state": UNFINISHED, "problem": "stopped before its first whole epoch"}
    with open(folder / LAST, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 0 < length < (folder / LAST).stat().st_size:
            raise CheckpointError(f"{folder / LAST}: expected a saved run, got a damaged file; train again")
        facts = json.loads(json.loads(file.read(length))["__metadata__"]["progress"])
    config = RunConfig.from_dict(facts["config"])
    refit = " (training again, with validation data)" if (folder / REFIT / LAST).exists() else ""
    return {
        "state": UNFINISHED,
        "problem": f"stopped after epoch {facts['epoch']} of {config.fit.epochs}{refit}; --resume goes on",
        "model": config.model.model,
        "baseline": False,
        "data": _data(config),
        "trace": {"fingerprint": facts["trace"], "sources": None},
        "epochs": {"done": facts["epoch"], "of": config.fit.epochs},
    } | ({"validation": best} if math.isfinite(best := float(facts["best_wql"])) else {})
