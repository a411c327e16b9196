"""Several runs of one command, from the `[[run]]` tables of a file: each in its folder, and one that fails alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from training.compare import OnModel, check_runs, train_models, tune_baselines
from training.config import RunConfig
from training.device import resolve_device
from training.errors import TrainingError
from training.plots import save_curves
from training.report import save_report
from training.run import Data, prepare
from training.trace import Trace


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """One run of several.

    Attributes:
        name: of its folder.
        runs: one per model.
        ensemble: whether to make one of all models too.
    """

    name: str
    runs: list[RunConfig]
    ensemble: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of several runs, by name: the reports, and why the others failed."""

    reports: dict[str, dict[str, Any]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


def check_plans(plans: Sequence[Planned], out: Path, *, resume: bool, overwrite: bool) -> None:
    """Find out before any work whether every run can begin.

    Raises:
        ConfigError, DeviceError: see `training.compare.check_runs` and `training.device.resolve_device`.
    """
    for plan in plans:
        resolve_device(plan.runs[0].fit.device)
        check_runs(plan.runs, out / plan.name, resume=resume, overwrite=overwrite, ensemble=plan.ensemble)


def train_many(
    trace: Trace,
    plans: Sequence[Planned],
    out: Path,
    *,
    resume: bool,
    overwrite: bool,
    on_plan: Callable[[Planned, Data], OnModel],
    on_failure: Callable[[str, str], None],
) -> Outcome:
    """Train runs that `check_plans` let through, one after the other, each into `out/<name>` with a report of its own.

    Args:
        trace: the trace of all.
        plans: the runs.
        out: folder of their folders.
        resume, overwrite: see `training.compare.train_models`.
        on_plan: called when a run begins; gives the callbacks of its models.
        on_failure: called with the name of a run and why it failed.
    """
    outcome = Outcome()
    data: Data | None = None
    for plan in plans:
        try:
            if data is None or data.config != plan.runs[0].data:
                data = None  # two at once may not fit
                prepared = prepare(trace, plan.runs[0].data)
                known, data = tune_baselines(prepared), prepared
            report = train_models(
                data,
                plan.runs,
                out / plan.name,
                resume=resume,
                overwrite=overwrite,
                ensemble=plan.ensemble,
                on_model=on_plan(plan, data),
                known=known,
            )
            save_report(report, out / plan.name)
            save_curves(report, out / plan.name)
        except Exception as error:  # whatever it is, the others are worth having
            kind = "" if isinstance(error, TrainingError) else f"{type(error).__name__}: "
            outcome.failed[plan.name] = f"{kind}{error}"
            on_failure(plan.name, outcome.failed[plan.name])
        else:
            outcome.reports[plan.name] = report
    return outcome
