"""What a search shows: a line or a bar per trial on stderr while it runs, a table of the best trials at its end."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any

from rich.progress import TaskID
from rich.table import Table

from training.progress import live_bars
from training.search_log import COMPLETE, PRUNED, Trial, best_trial
from training.tune import Tuned

_SHOWN = 5


class SearchProgress:
    """A bar per model on a terminal; one line per trial elsewhere."""

    def __init__(self, *, trials: int, epochs: int) -> None:
        """Set up.

        Args:
            trials: per model.
            epochs: most epochs of a trial.
        """
        self._trials, self._epochs = trials, epochs
        self._done: dict[str, list[Trial]] = {}
        self._tasks: dict[str, TaskID] = {}
        self._bars = live_bars("trial {task.fields[trial]}/" + str(trials) + " best wQL {task.fields[best]}")

    def __enter__(self) -> SearchProgress:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def on_epoch(self, model: str, epoch: int) -> None:
        """Show how far the trial of a model that runs is; `epoch` from 1."""
        done = len(self._done.get(model, []))
        self._bars.update(self._task(model), completed=done * self._epochs + epoch, trial=done + 1)

    def on_trial(self, model: str, number: int, trial: Trial) -> None:
        """Show a trial of a model; `number` from 1."""
        done = self._done.setdefault(model, [])
        done.append(trial)
        best = best_trial(done)
        self._bars.update(self._task(model), completed=number * self._epochs, trial=number, best=f"{best.best_wql:.4f}")
        if self._bars.disable:
            left = (self._trials - number) * sum(one.seconds for one in done) / number
            text = (
                f"{model}: trial {number}/{self._trials}  {_ended(trial)}  best {best.best_wql:.4f} (trial "
                f"{done.index(best) + 1})  about {left:.0f} s left  {_settings(trial)}"
            )
            print(text, file=sys.stderr, flush=True)

    def _task(self, model: str) -> TaskID:
        if model not in self._tasks:
            self._tasks[model] = self._bars.add_task(model, total=self._trials * self._epochs, trial=1, best="-")
        return self._tasks[model]


def _ended(trial: Trial) -> str:
    if trial.ended not in (COMPLETE, PRUNED):
        return f"not possible: {trial.ended}"
    text = f"val wQL {trial.best_wql:.4f}"
    return text if trial.ended == COMPLETE else f"{text} (pruned after epoch {len(trial.wql)})"


def _settings(trial: Trial) -> str:
    return " ".join(f"{key}={_written(value)}" for key, value in trial.settings.items())


def _written(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


def trials_table(tuned: Tuned) -> Table:
    """The best complete trials of a search, and the first, which had the settings as given."""
    shown = Table(title=f"{tuned.run.model.model}: the best of {len(tuned.trials)} trials", title_justify="left")
    for column in ("trial", "validation", "epochs"):
        shown.add_column(column, justify="right", no_wrap=True)
    shown.add_column("settings")  # wraps, as a model may have many
    ranked = sorted((one.best_wql, number, one) for number, one in enumerate(tuned.trials, 1) if one.ended == COMPLETE)
    for place, (wql, number, trial) in enumerate(ranked):
        if place < _SHOWN or number == 1:
            name = f"{number} (as given)" if number == 1 else f"{number}"
            style = "bold green" if trial is tuned.best else ""
            shown.add_row(name, f"{wql:.4f}", str(len(trial.wql)), _settings(trial), style=style)
    return shown


def set_options(tuned: Tuned) -> str:
    """The best settings as options of `fcast-train`."""
    return f"--model {tuned.run.model.model} " + " ".join(
        f"--set {key}={_written(value)}" for key, value in tuned.best.settings.items()
    )


def search_facts(tuned: list[Tuned]) -> dict[str, Any]:
    """What the report keeps of a search, by model."""
    return {
        one.run.model.model: {
            "trials": len(one.trials),
            "as_given_wql": one.trials[0].best_wql,
            "best_wql": one.best.best_wql,
            "settings": one.best.settings,
        }
        for one in tuned
    }
