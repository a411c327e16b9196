"""`fcast-train --tune N`: search each model's settings on validation, write the best as TOML that `--config` takes.

OUT/tune/<model>.json   every trial; a search that was killed goes on from here
OUT/tune/<model>.toml   the model's best settings
OUT/tuned.toml          those of the best model
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from training.checkpoint import write_atomically
from training.compare import earlier_files
from training.config import RunConfig, build_runs
from training.errors import ConfigError
from training.registry import model_params
from training.search import search
from training.search_log import FOLDER, SearchLog, Trial, best_trial
from training.search_space import search_space, searched_contexts
from training.trace import Trace

BEST = "tuned.toml"

OnModelTrial = Callable[[str, int, Trial], None]
"""Called after every trial with the model's name and the trial's number, from 1."""
OnModelEpoch = Callable[[str, int], None]
"""Called after every epoch of a trial with the model's name and the epoch's number, from 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuned:
    """What the search of one model found.

    Attributes:
        run: to train, with the best settings.
        trials: every trial, in order; the first has the settings as given.
    """

    run: RunConfig
    trials: list[Trial]

    @property
    def best(self) -> Trial:
        """The trial whose settings `run` has."""
        return best_trial(self.trials)


def check_search(
    runs: Sequence[RunConfig], out: Path, *, trials: int, warm: bool, resume: bool, overwrite: bool
) -> None:
    """Find out before any work whether a search can begin.

    Raises:
        ModuleNotFoundError: optuna is not installed.
        ConfigError: no trials are asked for, a warm start is asked for too, a simple baseline is named, the split has
            no test part, or an earlier search or another run is in the way.
    """
    import_module("optuna")
    if trials < 1:
        raise ConfigError(f"--tune: expected 1 trial or more, got {trials}; for example --tune 20")
    if warm:
        raise ConfigError("--tune: expected it without --from, whose checkpoint fixes the settings, got both")
    for run in runs:
        name = run.model.model
        if run.model.is_baseline:
            raise ConfigError(f"--tune: expected models to train, got the baseline {name}; give it without --tune")
        if run.data.split[2] == 0:
            raise ConfigError(f"split: expected a test part for the report, got {run.data.split}; give all three parts")
        best = out / FOLDER / f"{name}.toml"
        if resume and earlier_files(out / name) and not best.exists():
            raise ConfigError(
                f"{out / name}: expected no run but one of this search, got another; choose another --out"
            )


def tune_models(
    trace: Trace,
    runs: Sequence[RunConfig],
    settings: Mapping[str, Any],
    out: Path,
    *,
    trials: int,
    overwrite: bool,
    on_trial: OnModelTrial = lambda model, number, trial: None,
    on_epoch: OnModelEpoch = lambda model, epoch: None,
) -> list[Tuned]:
    """Search the settings of several models, which `check_search` let through.

    The context is searched for a single model only: several are compared on the same windows.

    Args:
        trace: the trace; its test part is not read.
        runs: the models as given.
        settings: what the user gave, which is not searched.
        out: folder of the runs.
        trials: per model, those of an earlier call included.
        overwrite: forget an earlier search, and its runs.
        on_trial: see `OnModelTrial`.
        on_epoch: see `OnModelEpoch`.

    Raises:
        TrainingError: see `training.search.search`.
    """
    if overwrite:  # all of it before the first trial: what a kill leaves is of this search, for --resume
        for run in runs:
            logs = (out / FOLDER / f"{run.model.model}.{suffix}" for suffix in ("json", "toml"))
            for file in (*logs, *earlier_files(out / run.model.model)):
                file.unlink(missing_ok=True)
    datas = searched_contexts(trace, runs[0].data, vary=len(runs) == 1 and "context" not in settings)
    tuned = []
    for run in runs:
        name = run.model.model
        own = _own(name, runs, settings)
        space = search_space(run, given=own.keys(), contexts=list(datas))
        path = out / FOLDER / f"{name}.json"
        log = SearchLog(path=path, run=run, fingerprint=trace.fingerprint(), space=space)
        run_of = partial(_run_of, name, own)
        done = search(
            datas, run_of, log, trials=trials, on_trial=partial(on_trial, name), on_epoch=partial(on_epoch, name)
        )
        tuned.append(Tuned(run=run_of(best_trial(done).settings), trials=done))
        _keep(tuned[-1], own, out)
    best = min(tuned, key=lambda one: one.best.best_wql)
    write_atomically(out / BEST, (out / FOLDER / f"{best.run.model.model}.toml").read_bytes())
    return tuned


def _own(name: str, runs: Sequence[RunConfig], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings without the hyper-parameters that only other models have."""
    others = {key for run in runs for key in model_params(run.model.model)} - set(model_params(name))
    return {key: value for key, value in settings.items() if key not in others}


def _run_of(name: str, own: Mapping[str, Any], found: Mapping[str, Any]) -> RunConfig:
    return build_runs([name], {**own, **found})[0]


def _keep(tuned: Tuned, settings: Mapping[str, Any], out: Path) -> None:
    """Write a model's best settings; where they are better than those of an earlier call, its run goes."""
    name = tuned.run.model.model
    best = {key: value for key, value in settings.items() if key != "device"} | tuned.best.settings
    lines = [f"{key} = {json.dumps(value)}" for key, value in best.items()]
    head = f"# Best settings of {name}, found by fcast-train --tune: --model {name} --config THIS_FILE\n"
    text = (head + "\n".join(lines) + "\n").encode()
    path = out / FOLDER / f"{name}.toml"
    if path.exists() and path.read_bytes() != text:
        for file in earlier_files(out / name):
            file.unlink()
    write_atomically(path, text)
