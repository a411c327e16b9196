"""Several trained models of one command as one: the mean of their quantiles, in one graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from training.checkpoint import Checkpoint, judged_model, load_checkpoint
from training.config import RunConfig
from training.device import resolve_device
from training.quantile_model import Ensemble
from training.run import Data, finish_run

NAME = "ensemble"


def build_ensemble(data: Data, folders: Sequence[Path], folder: Path) -> Checkpoint:
    """Combine runs into a run folder of its own, calibrated and scored like any; nothing is trained.

    Args:
        data: what the members were trained on.
        folders: finished runs of the members, two or more; a simple baseline is none.
        folder: run folder, made if missing.
    """
    members = [load_checkpoint(path) for path in folders]
    first = RunConfig.from_dict(members[0].meta["config"])
    device = resolve_device(first.fit.device)
    final = Ensemble([member.trained for member in members]).to(device)
    judged = Ensemble([judged_model(member, path) for member, path in zip(members, folders, strict=True)]).to(device)
    facts = {
        "name": NAME,
        "params": {},
        **{key: members[0].meta["model"][key] for key in ("log", "center", "calendar", "demand")},
        "members": [member.meta["model"] for member in members],
    }
    training = {
        key: max(member.meta["training"][key] for member in members)
        for key in ("epochs_trained", "best_epoch", "early_stopped", "final_train_loss")
    } | {
        "device": members[0].meta["training"]["device"],
        "seconds": round(sum(member.meta["training"]["seconds"] for member in members), 3),
    }
    folder.mkdir(parents=True, exist_ok=True)
    config = replace(first, model=replace(first.model, params={}))
    return finish_run(data, config, folder, judged, final, facts=facts, training=training)
