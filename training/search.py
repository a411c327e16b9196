"""One search: trials of one model, each a training on the same windows, judged by the best validation wQL.

The first trial has the settings as given; the others come from optuna's tree-structured Parzen estimator (Bergstra et
al. 2011, "Algorithms for Hyper-Parameter Optimization"). A trial that is worse than the median of the others at the
same epoch ends there. Test data is not read. Each trial's sampler is seeded from the seed and the trial's number, so a
search that was killed and taken up again makes the same trials as one that was not.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch

from training.config import RunConfig
from training.device import resolve_device
from training.errors import ConfigError, TrainingError
from training.fit import fit
from training.run import Data, build_model, window_source
from training.search_log import COMPLETE, PRUNED, SearchLog, Trial
from training.search_space import Dimension, settings_of

if TYPE_CHECKING:
    import optuna

_RANDOM_TRIALS = 6
_UNPRUNED_TRIALS = 4
_UNPRUNED_EPOCHS = 0.3  # a small learning rate begins behind and may end ahead

OnTrial = Callable[[int, Trial], None]
"""Called after every trial, those of an earlier call included, with its number from 1."""
OnSearchEpoch = Callable[[int], None]
"""Called after every epoch of a trial with its number from 1."""
RunOf = Callable[[Mapping[str, Any]], RunConfig]
"""The run that a trial's settings give."""


def search(
    datas: Mapping[int, Data],
    run_of: RunOf,
    log: SearchLog,
    *,
    trials: int,
    on_trial: OnTrial = lambda number, trial: None,
    on_epoch: OnSearchEpoch = lambda epoch: None,
) -> list[Trial]:
    """Go on with a search until it has so many trials.

    Args:
        datas: data by context, the same windows in each.
        run_of: see `RunOf`.
        log: of the search; its trials count.
        trials: how many to have.
        on_trial: see `OnTrial`.
        on_epoch: see `OnSearchEpoch`.

    Returns:
        Every trial, in order; the first is complete.

    Raises:
        CheckpointError: the log is of another search.
        TrainingError: the settings as given can't be trained.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    fit_config = log.run.fit
    pruner = optuna.pruners.MedianPruner(
        n_startup_trials=_UNPRUNED_TRIALS, n_warmup_steps=int(_UNPRUNED_EPOCHS * fit_config.epochs)
    )
    study = optuna.create_study(pruner=pruner)
    distributions = {name: _distribution(dimension) for name, dimension in log.space.items()}
    found = log.load()
    for number, trial in enumerate(found, 1):
        study.add_trial(_frozen(trial, distributions))
        on_trial(number, trial)
    while len(found) < trials:
        seed = fit_config.seed * 1_000_003 + len(found)
        study.sampler = optuna.samplers.TPESampler(seed=seed % 2**32, n_startup_trials=_RANDOM_TRIALS)
        if not found:
            study.enqueue_trial({name: dimension.default for name, dimension in log.space.items()})
        asked = study.ask(distributions)
        trial = _try(datas, run_of, log, asked, first=not found, on_epoch=on_epoch)
        _tell(study, asked, trial)
        found.append(trial)
        log.save(found)
        on_trial(len(found), trial)
    return found


def _try(
    datas: Mapping[int, Data],
    run_of: RunOf,
    log: SearchLog,
    asked: optuna.trial.Trial,
    *,
    first: bool,
    on_epoch: OnSearchEpoch,
) -> Trial:
    import optuna

    wql: list[float] = []

    def judge(line: dict[str, float]) -> None:
        wql.append(line["validation_wql"])
        on_epoch(len(wql))
        asked.report(wql[-1], len(wql))
        if asked.should_prune():
            raise optuna.TrialPruned

    started = time.perf_counter()
    folder = log.path.with_suffix("")
    shutil.rmtree(folder, ignore_errors=True)  # a killed trial's
    folder.mkdir(parents=True)
    ended = COMPLETE
    try:
        run = run_of(settings_of(asked.params))
        data = datas[run.data.context]
        device = resolve_device(run.fit.device)
        fit(
            build_model(data, run).to(device),
            window_source(data, device),
            data.split,
            config=run,
            folder=folder,
            on_epoch=judge,
        )
    except optuna.TrialPruned:
        ended = PRUNED
    except (TrainingError, torch.OutOfMemoryError) as error:
        impossible = type(error) in (TrainingError, ConfigError, torch.OutOfMemoryError)
        if first or not impossible:
            raise
        ended = str(error).splitlines()[0]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return Trial(params=asked.params, wql=tuple(wql), ended=ended, seconds=round(time.perf_counter() - started, 3))


def _distribution(dimension: Dimension) -> optuna.distributions.BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if dimension.values:
        return CategoricalDistribution(dimension.values)
    return FloatDistribution(dimension.low, dimension.high, log=dimension.log)


def _frozen(trial: Trial, distributions: dict[str, optuna.distributions.BaseDistribution]) -> optuna.trial.FrozenTrial:
    from optuna.trial import TrialState, create_trial

    complete = trial.ended == COMPLETE
    return create_trial(
        params=trial.params,
        distributions=distributions,
        state=TrialState.COMPLETE if complete else TrialState.PRUNED,
        value=trial.best_wql if complete else None,
        intermediate_values=dict(enumerate(trial.wql, 1)),
    )


def _tell(study: optuna.Study, asked: optuna.trial.Trial, trial: Trial) -> None:
    from optuna.trial import TrialState

    if trial.ended == COMPLETE:
        study.tell(asked, trial.best_wql)
    else:
        study.tell(asked, state=TrialState.PRUNED)
