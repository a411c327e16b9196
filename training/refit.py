"""Rolling origin with refitting: the test part in pieces, everything trained and tuned again before each.

Piece k sees all steps before it: the last of them are its validation part, in the proportion of the original split, and
the rest is trained on. So a model is judged the way it would be run, trained again every few days.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from training.checkpoint import judged_model
from training.errors import ConfigError
from training.forecasts import Forecasts, Run, baseline_forecasts, model_forecasts
from training.run import Data, prepare, train_model

if TYPE_CHECKING:
    from training.fit import OnBatch, OnEpoch

OnPiece = Callable[[int, Data], Callable[[str], tuple["OnBatch", "OnEpoch"]]]
"""Called with the number of a piece, from 0, and its data; gives what is called with each model's name."""


def pieces_of(data: Data, count: int) -> list[Data]:
    """The test part in `count` consecutive pieces of equal length, each with the data known before it.

    Raises:
        ConfigError: a piece would hold no origin.
        TraceError: a part of a piece has no window.
    """
    steps = len(data.series)
    edges = np.linspace(data.split.validation_end, steps, count + 1).round().astype(np.int64)
    share = data.config.split[1] / sum(data.config.split[:2])
    pieces = []
    for begin, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        inside = (data.split.test >= begin) & (data.split.test < end)
        if not inside.any():
            raise ConfigError(
                f"--refit: expected pieces with test windows, got none between steps {begin} and {end}; "
                f"use fewer than {count} pieces"
            )
        validation = round(begin * share)
        parts = (float(begin - validation), float(validation), float(steps - begin))
        piece = data if begin == edges[0] else prepare(data.trace, replace(data.config, split=parts))
        pieces.append(
            replace(
                piece,
                split=replace(piece.split, test=data.split.test[inside]),
                wide_split=replace(piece.wide_split, test=data.wide_split.test[inside]),
            )
        )
    return pieces


def refit_forecasts(
    runs: Sequence[Run],
    pieces: Sequence[Data],
    folder: Path,
    *,
    device: torch.device,
    on_piece: OnPiece,
    arima: bool = False,
) -> list[Forecasts]:
    """Train every model and tune every baseline anew before each piece, and join their test forecasts.

    Args:
        runs: models whose settings are trained; their weights are not used.
        pieces: from `pieces_of`.
        folder: an empty folder for the runs; nothing in it is needed afterwards.
        device: where the models are trained and forecast.
        on_piece: see `OnPiece`.
        arima: see `baseline_forecasts`.

    Returns:
        Validation forecasts are those of the first piece: what a planner knew when the test part began. Facts are of
        the last.

    Raises:
        ConfigError: a run is an ensemble, which is not trained itself.
    """
    for run in runs:
        if "members" in run.checkpoint.meta["model"]:
            raise ConfigError(
                f"--refit: expected runs that are trained, got the ensemble {run.path}; leave it out, give its members"
            )
    by_piece = []
    for number, piece in enumerate(pieces):
        on_model = on_piece(number, piece)
        found = []
        for index, run in enumerate(runs):
            into = folder / f"{number}-{index}"
            into.mkdir()
            on_batch, on_epoch = on_model(run.name)
            config = replace(run.config, data=piece.config, fit=replace(run.config.fit, device=str(device)))
            checkpoint = train_model(piece, config, into, on_batch=on_batch, on_epoch=on_epoch)
            trained = replace(run, checkpoint=checkpoint, judged=judged_model(checkpoint, into))
            found.append(model_forecasts(trained, piece, device=device))
        by_piece.append(found + baseline_forecasts(piece, arima=arima))
    # A baseline may need more history than an early piece has: only what stands in every piece is joined.
    names = [f.name for f in by_piece[0] if all(f.name in {g.name for g in piece} for piece in by_piece)]
    return [_join([next(f for f in piece if f.name == name) for piece in by_piece]) for name in names]


def _join(parts: Sequence[Forecasts]) -> Forecasts:
    return Forecasts(
        name=parts[0].name,
        model=parts[0].model,
        facts=parts[-1].facts,
        validation=parts[0].validation,
        test=np.concatenate([part.test for part in parts]),
        demand=None if parts[0].demand is None else np.concatenate([part.demand for part in parts]),
    )
