"""The trials of a search, as one JSON file that is written after each of them and from which a search goes on."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from training.checkpoint import META, write_atomically
from training.config import RunConfig
from training.errors import CheckpointError
from training.resume import check_same_run
from training.search_space import Dimension, settings_of

SCHEMA = 1
FOLDER = "tune"
"""Of the logs, beside the run folders."""
COMPLETE, PRUNED = "complete", "pruned"
_REMEDY = "start over with --overwrite"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One set of settings that was tried.

    Attributes:
        params: point of the search space.
        wql: validation wQL after each epoch.
        ended: "complete", "pruned" (worse than half of the others at that epoch) or why it can't be trained.
        seconds: it took.
    """

    params: dict[str, Any]
    wql: tuple[float, ...]
    ended: str
    seconds: float

    @property
    def best_wql(self) -> float:
        """Of the best epoch; infinite without one."""
        return min(self.wql, default=float("inf"))

    @property
    def settings(self) -> dict[str, Any]:
        """What it was trained with, for `--set`."""
        return settings_of(self.params)


def best_trial(trials: list[Trial]) -> Trial:
    """The complete one with the best score; the first of equals."""
    return min((trial for trial in trials if trial.ended == COMPLETE), key=lambda trial: trial.best_wql)


def is_search(folder: Path) -> bool:
    """Whether a folder holds the logs of searches, and no run."""
    return folder.name == FOLDER and not (folder / META).exists() and any(folder.glob("*.json"))


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchLog:
    """The file of a search.

    Attributes:
        path: where it is.
        run: settings as they were given.
        fingerprint: of the trace.
        space: what is searched.
    """

    path: Path
    run: RunConfig
    fingerprint: str
    space: dict[str, Dimension]

    def save(self, trials: list[Trial]) -> None:
        """Write the trials so far, atomically."""
        facts = {"schema": SCHEMA, "trace": self.fingerprint, "config": self.run.to_dict(), "space": self._space()}
        facts["trials"] = [asdict(trial) for trial in trials]
        write_atomically(self.path, (json.dumps(facts, indent=1, allow_nan=False) + "\n").encode())

    def load(self) -> list[Trial]:
        """The trials of an earlier call; none when there is no file.

        Raises:
            CheckpointError: the file is damaged, or of another search; the first difference is named.
        """
        if not self.path.exists():
            return []
        try:
            facts = json.loads(self.path.read_text(encoding="utf-8"))
            schema, saved, trace, space = (facts[key] for key in ("schema", "config", "trace", "space"))
            earlier = RunConfig.from_dict(saved)
            trials = [Trial(**{**trial, "wql": tuple(trial["wql"])}) for trial in facts["trials"]]
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{self.path}: expected the trials of a search, got other JSON; {_REMEDY}") from error
        if schema != SCHEMA:
            raise CheckpointError(f"{self.path}: expected schema {SCHEMA}, got {schema}; {_REMEDY}")
        check_same_run(self.path, saved=earlier, wanted=self.run, saved_trace=trace, trace=self.fingerprint)
        ours = self._space()
        for name in ours | space:
            if ours.get(name) != space.get(name):
                wanted, got = (found.get(name, "a fixed value") for found in (ours, space))
                raise CheckpointError(
                    f"{self.path}: expected {name} to be {wanted}, got {got} in the saved search; "
                    f"repeat its settings, or {_REMEDY}"
                )
        return trials

    def _space(self) -> dict[str, Any]:
        return json.loads(json.dumps({name: asdict(dimension) for name, dimension in self.space.items()}))
