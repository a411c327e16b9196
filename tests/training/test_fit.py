"""The training loop: reproducible, resumable to the bit, stops early, and its numbers are real."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from tests.training.traces import count_trace, request_trace
from training import registry
from training.backtest import rolling_forecasts, thin
from training.compare import check_runs
from training.config import build_runs
from training.errors import CheckpointError, ConfigError, TrainingError
from training.metrics import wql
from training.run import prepare, train_model
from training.windows import WindowSource

SMALL = {"context": 16, "horizon": 3, "epochs": 3, "batch_size": 64, "device": "cpu"}


def run_of(model: str = "dlinear", **settings):
    return build_runs([model], {**SMALL, **settings})[0]


def train(folder, run, *, rows: int = 500, **options):
    folder.mkdir(parents=True, exist_ok=True)
    return train_model(prepare(request_trace(rows), run.data), run, folder, **options)


def test_equal_seeds_give_equal_weights_and_others_do_not(tmp_path):
    weights = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        checkpoint = train(tmp_path / name, run_of("gru", seed=seed, hidden_size=8))
        weights.append(torch.cat([p.flatten() for p in checkpoint.model.parameters()]))
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize("model", ["dlinear", "transformer"])
def test_a_run_interrupted_in_any_epoch_and_resumed_ends_with_the_same_weights(tmp_path, model):
    run = run_of(model, epochs=4)
    whole = train(tmp_path / "whole", run)
    steps = 0

    def interrupt(windows, loss):
        nonlocal steps
        steps += 1
        if steps in (7, 9, 16):
            raise KeyboardInterrupt

    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "parts", run, resume=True, on_batch=interrupt)
    resumed = train(tmp_path / "parts", run, resume=True)
    for (name, a), b in zip(whole.model.state_dict().items(), resumed.model.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    history = [
        [json.loads(line) for line in (tmp_path / f / "metrics.jsonl").read_text().splitlines()]
        for f in ("whole", "parts")
    ]
    assert [line["validation_wql"] for line in history[0]] == [line["validation_wql"] for line in history[1]]


def test_a_finished_run_is_returned_as_it_is(tmp_path):
    first = train(tmp_path, run_of())
    calls = []
    again = train(tmp_path, run_of(), resume=True, on_epoch=calls.append)
    assert not calls
    assert again.sha256 == first.sha256


def test_a_run_with_other_settings_is_not_resumed(tmp_path):
    train(tmp_path, run_of())
    with pytest.raises(CheckpointError, match=r"expected learning_rate = 0.5, got 0.002 in the saved run.*--overwrite"):
        train(tmp_path, run_of(learning_rate=0.5), resume=True)


@pytest.mark.parametrize("finished", [True, False])
def test_a_run_on_another_trace_is_not_resumed(tmp_path, finished):
    run = run_of(epochs=2)
    train(tmp_path, run)
    if not finished:
        (tmp_path / "checkpoint.json").unlink()
    with pytest.raises(CheckpointError, match="expected a run on this trace .* got one on another"):
        train(tmp_path, run, rows=501, resume=True)


def test_a_finished_run_of_another_version_is_refused_and_not_a_crash(tmp_path):
    train(tmp_path, run_of())
    meta = json.loads((tmp_path / "checkpoint.json").read_text())
    meta["config"]["fit"]["momentum"] = 0.9
    (tmp_path / "checkpoint.json").write_text(json.dumps(meta))
    with pytest.raises(CheckpointError, match="expected the facts of a checkpoint"):
        train(tmp_path, run_of(), resume=True)


def test_gradients_are_clipped(tmp_path):
    weights = []
    for norm in (1e-6, 1.0):
        run = run_of("gru", hidden_size=8, epochs=1, clip_norm=norm, weight_decay=0)
        weights.append(train(tmp_path / str(norm), run).model.state_dict()["head.weight"])
    assert not torch.equal(*weights)


def test_nothing_before_the_test_part_depends_on_it(tmp_path):
    """Statistics, weights, the prior and the choice of the best epoch: the same when test is something else."""
    run = run_of("gru", hidden_size=8)
    found = []
    for factor in (1.0, 50.0):
        trace = request_trace(500)
        data = prepare(trace, run.data)
        data.series.values[data.split.validation_end :] *= factor
        (tmp_path / str(factor)).mkdir()
        checkpoint = train_model(data, run, tmp_path / str(factor))
        found.append((checkpoint.sha256, checkpoint.meta["prior"], checkpoint.meta["training"]["best_validation_wql"]))
        assert max(data.split.validation) + 3 <= data.split.validation_end
    assert found[0] == found[1]


def test_statistics_and_prior_come_from_the_training_part_only(tmp_path):
    run = run_of("gru", hidden_size=8)
    found = []
    for factor in (1.0, 50.0):
        data = prepare(request_trace(500), run.data)
        data.series.values[data.split.train_end :] *= factor
        (tmp_path / str(factor)).mkdir()
        checkpoint = train_model(data, run, tmp_path / str(factor))
        found.append((checkpoint.meta["prior"], checkpoint.model.scaling.unit.tolist()))
    assert found[0] == found[1]


def test_training_stops_after_patience_epochs_without_a_better_score(tmp_path):
    checkpoint = train(tmp_path, run_of(epochs=60, patience=2, learning_rate=0.05))
    facts = checkpoint.meta["training"]
    assert facts["early_stopped"]
    assert facts["epochs_trained"] == facts["best_epoch"] + 2 < 60


def test_the_checkpoint_holds_the_best_epoch_and_its_saved_score_is_what_the_weights_give(tmp_path):
    run = run_of("gru", hidden_size=8, epochs=6, learning_rate=0.02)
    checkpoint = train(tmp_path, run)
    data = prepare(request_trace(500), run.data)
    source = WindowSource(data.series, context=16, horizon=3, device=torch.device("cpu"))
    score = wql(*rolling_forecasts(checkpoint.model, source, data.split.validation), run.data.levels).mean()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert score == pytest.approx(min(line["validation_wql"] for line in lines), rel=1e-6)
    assert score == pytest.approx(checkpoint.meta["scores"]["validation"]["wql"]["mean"], rel=1e-6)


def test_training_learns_what_can_be_learnt(tmp_path):
    counts = np.tile([10.0, 200.0, 50.0, 400.0], 200)
    run = run_of("gru", series="load", bin_s=60, context=8, horizon=4, epochs=20, learning_rate=0.01)
    checkpoint = train_model(prepare(count_trace(counts, bin_s=60.0), run.data), run, tmp_path)
    assert checkpoint.meta["scores"]["test"]["wql"]["mean"] < 0.02


def test_windows_kept_for_the_parity_proof_are_real_ones_after_the_training_part(tmp_path):
    run = run_of()
    checkpoint = train(tmp_path, run)
    data = prepare(request_trace(500), run.data)
    last = checkpoint.windows["time_s"]
    assert last.min() >= data.series.time_s[data.split.train_end - 1]
    step = int(np.flatnonzero(data.series.time_s == last[5])[0])
    np.testing.assert_array_equal(checkpoint.windows["context"][5], data.series.values[step - 15 : step + 1])


def test_a_loss_that_is_not_finite_stops_with_a_remedy(tmp_path, monkeypatch):
    class Explodes(torch.nn.Module):
        def __init__(self, channels, context, horizon):
            super().__init__()
            self.grow = torch.nn.Parameter(torch.ones(()))

        def forward(self, x):
            return x[:, -1] * self.grow / 0.0

    monkeypatch.setitem(registry._models, "explodes", Explodes)
    with pytest.raises(TrainingError, match=r"epoch 1, step 1 .*, a second time; likely a learning rate too"):
        train(tmp_path, run_of("explodes"))


def test_an_earlier_run_is_not_overwritten_unasked(tmp_path):
    train(tmp_path / "dlinear", run_of())
    (tmp_path / "report.json").touch()
    with pytest.raises(ConfigError, match=r"expected no earlier run, got checkpoint.json; give --resume"):
        check_runs([run_of()], tmp_path, resume=False, overwrite=False)
    check_runs([run_of()], tmp_path, resume=False, overwrite=True)
    check_runs([run_of()], tmp_path, resume=True, overwrite=False)
    with pytest.raises(ConfigError, match="--resume: expected it without --overwrite"):
        check_runs([run_of()], tmp_path, resume=True, overwrite=True)


def test_calendar_features_follow_the_clock_and_the_span(tmp_path):
    day = 1.7e9 - 1.7e9 % 86400
    counts = np.random.default_rng(0).poisson(50, 6 * 24 + 2).astype(float)
    run = run_of(series="load", bin_s=3600, epochs=1)
    epoch = train_model(prepare(count_trace(counts, bin_s=3600.0, start_s=day), run.data), run, tmp_path)
    assert epoch.meta["model"]["calendar"] == ["day"]
    assert epoch.model.takes_time
    relative = prepare(count_trace(counts, bin_s=3600.0), run.data)
    explicit = run_of(series="load", bin_s=3600, calendar="day")
    with pytest.raises(ConfigError, match="calendar: expected a trace with wall-clock times"):
        train_model(relative, explicit, tmp_path)


def test_thinned_origins_are_spread_evenly_and_in_order():
    picked = thin(np.arange(100_000), 1000)
    assert len(picked) == len(set(picked.tolist())) == 1000
    assert picked[0] == 0
    assert picked[-1] == 99_999
    assert np.diff(picked).min() >= 99
