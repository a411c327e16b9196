"""The monitors: safe without a GPU, and honest numbers with one (a stand-in: there is none here)."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from tests.training.frames import request_frame, small
from training.monitor import monitor_gpu_performance, monitor_training_progress
from training.request_predictor import EnhancedRequestPredictor


@pytest.fixture
def gpu(monkeypatch):
    for name, value in {
        "is_available": True,
        "current_device": 0,
        "get_device_name": "A100",
        "memory_allocated": 2**30,
        "memory_reserved": 2**31,
        "get_device_properties": SimpleNamespace(total_memory=2**35),
        "utilization": 37,
    }.items():
        monkeypatch.setattr(torch.cuda, name, lambda *args, value=value: value)


def test_without_a_gpu_it_says_so(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert monitor_gpu_performance() == {"cuda_available": False}
    assert capsys.readouterr().out == "CUDA not available\n"


@pytest.mark.usefixtures("gpu")
def test_a_gpu_is_named_with_its_memory_and_utilisation(capsys):
    facts = monitor_gpu_performance()
    assert (facts["device"], facts["memory_allocated_bytes"], facts["utilization_percent"]) == ("A100", 2**30, 37)
    assert "Memory cached: 2.00 of 32.0 GiB\nUtilisation: 37 %" in capsys.readouterr().out


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("error", [ModuleNotFoundError("pynvml"), RuntimeError("no driver"), Exception("NotSupported")])
def test_utilisation_that_cannot_be_asked_is_none_with_the_reason(monkeypatch, capsys, error):
    def fail(*args):
        raise error

    monkeypatch.setattr(torch.cuda, "utilization", fail)
    facts = monitor_gpu_performance(0)
    assert facts["utilization_percent"] is None
    assert str(error) in facts["utilization_error"]
    assert "Utilisation: unknown" in capsys.readouterr().out


def test_training_progress_has_the_losses_and_epochs(capsys):
    predictor = EnhancedRequestPredictor(device="cpu")
    predictor.add_model("dlinear", small(epochs=2))
    assert monitor_training_progress(predictor)["dlinear"]["best_loss"] is None
    result = predictor.train_models(request_frame())["dlinear"]
    facts = monitor_training_progress(predictor)["dlinear"]
    assert facts == {"final_loss": result.final_loss, "best_loss": result.best_loss, "epochs_trained": 2}
    assert "dlinear: not trained" in (printed := capsys.readouterr().out)
    assert "2 epochs" in printed
