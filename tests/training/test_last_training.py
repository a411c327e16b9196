"""`refit`: the last training, on train and validation together, whatever came before it and wherever it was killed."""

from __future__ import annotations

import pytest
import torch

from tests.training.test_fit import run_of, train
from tests.training.traces import request_trace
from training import run as runs
from training.calibration import NONE, calibrate
from training.checkpoint import JUDGED, WEIGHTS, load_checkpoint
from training.compare import earlier_files
from training.run import build_model, prepare, window_source
from training.warm_start import warm_run

STAGES = {"judged alone": "save_weights", "both weights": "save_checkpoint"}


@pytest.mark.parametrize("stage", STAGES)
def test_a_run_killed_while_it_is_finished_resumes_with_the_weights_that_validation_judged(
    tmp_path, monkeypatch, stage
):
    run = run_of(refit=True, anchor=False)
    whole = train(tmp_path / "whole", run)
    real = getattr(runs, STAGES[stage])

    def killed(path, *given):
        if path.name != JUDGED:
            raise KeyboardInterrupt("killed")
        real(path, *given)

    with monkeypatch.context() as patch:
        patch.setattr(runs, STAGES[stage], killed)
        with pytest.raises(KeyboardInterrupt, match="killed"):
            train(tmp_path / "parts", run)
    resumed = train(tmp_path / "parts", run, resume=True)
    assert resumed.sha256 == whole.sha256
    assert resumed.meta["scores"] == whole.meta["scores"]
    assert (tmp_path / "parts" / JUDGED).read_bytes() == (tmp_path / "whole" / JUDGED).read_bytes()
    assert (tmp_path / "whole" / JUDGED).read_bytes() != (tmp_path / "whole" / WEIGHTS).read_bytes()


def test_a_warm_start_is_trained_on_validation_too(tmp_path):
    train(tmp_path / "first", run_of(anchor=False))
    start = load_checkpoint(tmp_path / "first")
    run = warm_run(start, [], {"device": "cpu", "epochs": 2, "refit": True})
    again = train(tmp_path / "again", run, rows=600, start=start)
    assert again.meta["training"]["best_epoch"] > 0
    assert (tmp_path / "again" / JUDGED).read_bytes() != (tmp_path / "again" / WEIGHTS).read_bytes()


def test_a_model_trained_on_validation_too_is_not_moved_by_the_errors_of_one_that_was_not(tmp_path):
    found = {
        refit: train(tmp_path / str(refit), run_of(refit=refit, anchor=False, log=False, epochs=1), rows=1600)
        for refit in (False, True)
    }
    assert found[False].meta["training"]["calibration"] != NONE
    assert found[True].meta["training"]["calibration"] == NONE
    assert not found[True].model.offset.any()


def test_what_the_last_training_left_is_replaced_with_its_run(tmp_path):
    train(tmp_path, run_of(refit=True, anchor=False))
    for file in earlier_files(tmp_path):
        file.unlink()
    assert {file.name for file in tmp_path.glob("**/*.safetensors")} == {"windows.safetensors"}


def test_a_horizon_as_long_as_half_of_validation_is_not_calibrated():
    run = run_of(horizon=100, context=4)
    data = prepare(request_trace(1600), run.data)
    source = window_source(data, torch.device("cpu"))
    assert 200 <= len(data.split.validation) <= 400
    assert calibrate(build_model(data, run), source, data.split.validation[:200]) == NONE
