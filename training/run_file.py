"""What `--config` takes: a TOML file of one run or several, or a run folder, whose run is then made again."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from training.errors import ConfigError

_OF_A_TABLE = ("name", "model", "ensemble")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFile:
    """Settings, and what they are for."""

    settings: dict[str, Any] = field(default_factory=dict)
    """Flat keys, as for `--set`; of several runs, what they share."""
    models: str | None = None
    """As for `--model`; None when the file names none."""
    tables: list[dict[str, Any]] = field(default_factory=list)
    """The `[[run]]` tables: flat keys that differ from the shared ones, and `name`, `model` and `ensemble`."""
    made: dict[str, Any] | None = None
    """Facts of the run whose folder this is: its `checkpoint.json`."""


def read_run_file(path: Path) -> RunFile:
    """Read a TOML file, or a run folder (or its `checkpoint.json`).

    Raises:
        ConfigError: the file is missing or not TOML, or a table is not one of a run.
        CheckpointError: the run is not finished, or damaged.
    """
    if path.is_dir() or path.suffix == ".json":
        return _of_run(path if path.is_dir() else path.parent)
    settings = _load_toml(path)
    tables = settings.pop("run", [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise ConfigError(f"{path}: expected runs as [[run]] tables, got run = {tables!r}; write [[run]] above each")
    models = _models(settings.pop("model", None), where=str(path))
    checked = [_table(table, models, where=f"{path}: run {number}") for number, table in enumerate(tables, 1)]
    names = [table["name"] for table in checked]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"{path}: expected runs with names of their own, got '{twice[0]}' twice; set name in one")
    return RunFile(settings=settings, models=models, tables=checked)


def _load_toml(path: Path) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: expected a TOML file, got {error.strerror}; correct --config") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: expected TOML, got an error: {error}; correct the file") from error


def _models(found: Any, *, where: str) -> str | None:
    if found is None:
        return None
    names = found.split(",") if isinstance(found, str) else found
    if not isinstance(names, list) or not all(isinstance(name, str) and name.strip() for name in names) or not names:
        raise ConfigError(f'{where}: expected model as "gru" or ["gru", "dlinear"], got {found!r}; correct it')
    return ",".join(name.strip() for name in names)


def _table(table: dict[str, Any], models: str | None, *, where: str) -> dict[str, Any]:
    model = _models(table.get("model", models), where=where) or "gru"
    name = table.get("name", model.replace(",", "-"))
    if not isinstance(name, str) or not name or set(name) & set("/\\\0") or name.startswith("."):
        raise ConfigError(f"{where}: expected name as that of a folder, got {name!r}; correct it")
    ensemble = table.get("ensemble", False)
    if not isinstance(ensemble, bool):
        raise ConfigError(f"{where}: expected ensemble as true or false, got {ensemble!r}; correct it")
    return {**table, "name": name, "model": model, "ensemble": ensemble}


def table_settings(file: RunFile, table: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of one run of several: what all share, then its own."""
    return file.settings | {key: value for key, value in table.items() if key not in _OF_A_TABLE}


def _of_run(folder: Path) -> RunFile:
    from training.checkpoint import META, read_meta
    from training.config import RunConfig

    meta = read_meta(folder)
    try:
        parts, name = RunConfig.from_dict(meta["config"]).to_dict(), meta["model"]["name"]
    except (KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{folder / META}: expected the settings of a run, got none for {error}") from error
    if "members" in meta["model"]:
        members = ", ".join(member["name"] for member in meta["model"]["members"])
        raise ConfigError(f"{folder}: expected a run that was trained, got an ensemble of {members}; give a member's")
    params = parts["model"].pop("params")
    flat = {key: value for part in parts.values() for key, value in part.items()} | params
    settings = {key: value for key, value in flat.items() if value is not None and key not in ("model", "start")}
    return RunFile(settings=settings, models=name, made=meta)


def differences(made: Mapping[str, Any], *, fingerprint: str, libraries: Mapping[str, str], threads: int) -> list[str]:
    """Why a run made again may come out otherwise, one line each; none where it comes out the same on the CPU.

    Args:
        made: facts of the earlier run.
        fingerprint: of the trace now.
        libraries: versions now.
        threads: that torch computes with now.
    """
    found = []
    if made["trace"]["fingerprint"] != fingerprint:
        sources = ", ".join(made["trace"]["sources"])
        found.append(f"the trace is another than that of the run ({sources}, {made['trace']['fingerprint'][:12]})")
    for name, version in made.get("libraries", {}).items():
        if libraries.get(name) != version:
            found.append(f"{name} is {libraries.get(name, 'not there')}, was {version}")
    before = made["training"].get("threads", threads)
    if before != threads:
        found.append(f"torch computes with {threads} threads, did with {before}; set OMP_NUM_THREADS={before}")
    if (device := made["training"]["device"]) != "cpu":
        found.append(f"the run was made on {device}; only runs on the CPU come out equal to the bit")
    return found
