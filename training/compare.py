"""Several models on one trace, beside the simple baselines: what `fcast-train` does and reports."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from training.baseline_run import save_baseline
from training.baselines import BaselineForecast, left_out, run_baselines
from training.checkpoint import JUDGED, LAST, META, WEIGHTS, Checkpoint, read_meta
from training.config import RunConfig
from training.ensemble import NAME as ENSEMBLE
from training.ensemble import build_ensemble
from training.errors import ConfigError
from training.fit import OnBatch, OnEpoch
from training.forecaster import build_network
from training.metrics import scores
from training.report import JSON as REPORT
from training.resume import only_process
from training.run import REFIT, Data, check_start, follow_model, train_model

OnModel = Callable[[str], tuple[OnBatch, OnEpoch]]
"""Called when a model's training begins; gives the two callbacks of `fit`."""


def check_runs(runs: Sequence[RunConfig], out: Path, *, resume: bool, overwrite: bool, ensemble: bool = False) -> bool:
    """Find out before any work whether every network can be built and no earlier run is in the way.

    Returns:
        Whether to go on with what is there: `resume`, or an earlier call of the same runs was not finished.

    Raises:
        ConfigError: a hyper-parameter is impossible, an ensemble is asked of one model, or all the runs are there and
            finished and neither `resume` nor `overwrite` is given.
    """
    if ensemble and sum(not run.model.is_baseline for run in runs) < 2:
        raise ConfigError("--ensemble: expected two models or more to train, got fewer; name several with --model")
    if ensemble and (stateful := [run.model.model for run in runs if run.model.stateful]):
        raise ConfigError(
            f"--ensemble: expected models of windows, got stateful=true for {', '.join(stateful)}; an ensemble has no "
            "state to carry, train it without"
        )
    if resume and overwrite:
        raise ConfigError("--resume: expected it without --overwrite, got both; give one of them")
    for run in runs:
        data = run.data
        if not run.model.is_baseline:
            build_network(
                run.model.model,
                run.model.params,
                channels=3,
                context=data.context // data.ratio,
                horizon=data.horizon,
                values=3,
            )
    if resume or overwrite:
        return resume
    folders = [out / run.model.model for run in runs] + ([out / ENSEMBLE] if ensemble else [])
    earlier = [folder for folder in folders if earlier_files(folder)]
    if earlier and finished(folders, out):
        raise ConfigError(
            f"{earlier[0]}: expected no earlier run, got {META}; give --resume to take it as it is, --overwrite to "
            "replace it, or another --out"
        )
    return bool(earlier)


def finished(folders: Sequence[Path], out: Path) -> bool:
    """Whether every run is finished, and a report was written after them."""
    ends = [folder / META for folder in folders]
    if not all(end.exists() for end in ends):
        return False
    report = out / REPORT
    return report.exists() and report.stat().st_mtime >= max(end.stat().st_mtime for end in ends)


def earlier_files(folder: Path) -> list[Path]:
    """Files of a finished or interrupted run in a run folder."""
    files = [folder / name for name in (META, LAST, WEIGHTS, JUDGED)]
    files += [folder / REFIT / name for name in (LAST, WEIGHTS)]
    return [file for file in files if file.exists()]


def tune_baselines(data: Data) -> list[BaselineForecast]:
    """Tune every simple baseline that applies and forecast the scored windows."""
    return run_baselines(
        data.wide,
        context=data.wide_context,
        horizon=data.config.horizon,
        levels=data.config.levels,
        validation=data.wide_split.validation,
        test=data.wide_split.test,
    )


def score_baselines(data: Data, found: Sequence[BaselineForecast]) -> list[dict[str, Any]]:
    """Score simple baselines: one row of the report each, with its tuned settings."""
    split = data.wide_split
    targets = {
        part: data.wide.values[origins[:, None] + np.arange(data.config.horizon)]
        for part, origins in (("validation", split.validation), ("test", split.test))
        if len(origins)
    }
    return [
        {
            "name": baseline.name,
            "settings": baseline.settings,
            **{
                part: scores(getattr(baseline, part), target, data.config.levels, data.series.channels)
                for part, target in targets.items()
            },
        }
        for baseline in found
    ]


def train_models(
    data: Data,
    runs: Sequence[RunConfig],
    out: Path,
    *,
    resume: bool,
    overwrite: bool,
    on_model: OnModel,
    ensemble: bool = False,
    start: Checkpoint | None = None,
    known: Sequence[BaselineForecast] = (),
) -> dict[str, Any]:
    """Train several models, which `check_runs` let through, into `out/<model>` and compare them with the baselines.

    A run that names a baseline is tuned, saved like a model and stands in the report among the baselines, with its
    folder. Finished runs on the same data that `out` holds already stand in the report too. With `ensemble`, the mean
    of the models trained now is one more run, `out/ensemble`. `start` is what the one run begins with. `known` is what
    `tune_baselines` gave on these data; without it that is done here.

    Returns:
        The report, as JSON values; see `training.report`.

    Raises:
        ConfigError: the split has no test part, which the report shows; `out` holds runs on other data and
            `overwrite` is not given; or a baseline is asked for that does not apply to the series.
    """
    if not len(data.split.test):
        raise ConfigError(f"split: expected a test part for the report, got {data.config.split}; give all three parts")
    if start is not None:
        check_start(data, runs[0], start)
    names = [run.model.model for run in runs] + ([ENSEMBLE] if ensemble else [])
    tuned = {baseline.name: baseline for baseline in known or tune_baselines(data)}
    baselines = {row["name"]: row for row in score_baselines(data, list(tuned.values()))}
    reasons = left_out(data.wide, validation=data.wide_split.validation, test=data.wide_split.test)
    for run in runs:
        if run.model.is_baseline and run.model.model not in tuned:
            name = run.model.model
            raise ConfigError(
                f"--model {name}: expected a series it applies to, got none: {reasons[name]}; leave it out"
            )
    rows: dict[str, dict[str, Any]] = {}
    for folder, meta, same in _others(out, data, names):
        if same and meta["model"]["name"] in baselines:
            baselines[meta["model"]["name"]]["folder"] = os.fspath(folder)
        elif same:
            rows[folder.name] = _row(folder, meta)
        elif not overwrite:
            raise ConfigError(
                f"{out}: expected runs on this trace with these data settings, got {folder.name} on other ones; "
                "choose another --out, or --overwrite to leave it out of the report"
            )
    for run in runs:
        folder = out / run.model.model
        folder.mkdir(parents=True, exist_ok=True)
        with only_process(folder):
            if overwrite:
                for path in earlier_files(folder):
                    path.unlink()
            if run.model.is_baseline:
                row = baselines[run.model.model]
                found = {part: row[part] for part in ("validation", "test")}
                meta = save_baseline(data, run, folder, tuned[row["name"]], scores=found, resume=resume).meta
                row["folder"] = os.fspath(folder)
                continue
            on_batch, on_epoch = on_model(run.model.model)
            meta = train_model(data, run, folder, resume=resume, start=start, on_batch=on_batch, on_epoch=on_epoch).meta
            rows[folder.name] = _row(folder, meta)
    if ensemble:
        folders = [out / run.model.model for run in runs if not run.model.is_baseline]
        rows[ENSEMBLE] = _row(out / ENSEMBLE, build_ensemble(data, folders, out / ENSEMBLE).meta)
    models = [rows[name] for name in sorted(rows)]
    best = min(models, key=lambda row: float(row["validation"]["wql"]["mean"]), default=None)
    return {
        "trace": meta["trace"],
        "split": meta["split"],
        "kind": meta["kind"],
        "channels": meta["channels"],
        "models": models,
        "baselines": list(baselines.values()),
        "left_out": reasons,
        "best_model": best and best["name"],
        "best_baseline": min(baselines.values(), key=lambda row: float(row["test"]["wql"]["mean"]))["name"],
    }


def follow_models(data: Data, runs: Sequence[RunConfig], *, start: Checkpoint | None = None) -> None:
    """Take part in what `train_models` does in the first process of `torchrun`; in every other one."""
    for run in runs:
        if not run.model.is_baseline:
            follow_model(data, run, start=start)


def _others(out: Path, data: Data, names: Sequence[str]) -> Iterator[tuple[Path, dict[str, Any], bool]]:
    """Finished runs in `out` that are not trained now, and whether they saw the same data."""
    for path in sorted(out.glob(f"*/{META}")):
        if path.parent.name not in names:
            meta = read_meta(path.parent)
            same = meta["trace"]["fingerprint"] == data.trace.fingerprint()
            yield path.parent, meta, same and RunConfig.from_dict(meta["config"]).data == data.config


def _row(folder: Path, meta: dict[str, Any]) -> dict[str, Any]:
    return {"name": folder.name, "folder": os.fspath(folder), "training": meta["training"], **meta["scores"]}
