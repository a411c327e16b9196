"""A step of training is the same in parts, in less memory and compiled; what a device can't do is said."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch

from tests.training.test_fit import run_of, train
from tests.training.traces import count_trace, request_trace
from training import registry
from training.config import build_runs
from training.errors import TrainingError
from training.models.gru import GRU
from training.run import build_model, prepare, train_model, window_source
from training.steps import Stepper
from training.world import World

CPU = torch.device("cpu")
LOAD = {"series": "load", "bin_s": 60, "context": 8, "horizon": 3, "device": "cpu"}


class Greedy(GRU):
    """Runs out of memory with more than 20 windows at a time."""

    def forward(self, x):
        if self.training and len(x) > 20:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return super().forward(x)


def trained(folder, model: str, **settings):
    rng = np.random.default_rng(0)
    run = build_runs([model], {**LOAD, "epochs": 2, "batch_size": 64, **settings})[0]
    folder.mkdir()
    return train_model(prepare(count_trace(rng.poisson(40, 400), bin_s=60.0), run.data), run, folder)


def largest_difference(a, b) -> float:
    pairs = zip(a.model.parameters(), b.model.parameters(), strict=True)
    return max(float((x - y).detach().abs().max()) for x, y in pairs)


@pytest.mark.parametrize("micro_batch", [1, 17, 64, 1000])
def test_a_batch_in_parts_has_the_gradient_of_the_whole(micro_batch):
    run = build_runs(["gru"], LOAD)[0]
    data = prepare(count_trace(np.random.default_rng(0).poisson(40, 300), bin_s=60.0), run.data)
    gradients = []
    for parts in (0, micro_batch):
        model = build_model(data, run)
        stepper = Stepper(model, window_source(data, CPU), World(), config=run)
        stepper.micro_batch = parts
        loss, _ = stepper.take(torch.from_numpy(data.split.train[:64]), rate=0.0, seed=0)
        gradients.append(torch.cat([loss.flatten(), *(p.grad.flatten() for p in model.parameters())]))
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)


def test_a_batch_that_does_not_fit_is_trained_in_smaller_parts_with_the_same_result(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(registry._models, "greedy", Greedy)
    plain = trained(tmp_path / "plain", "gru")
    with caplog.at_level(logging.WARNING):
        greedy = trained(tmp_path / "greedy", "greedy")
    lines = [line for line in caplog.messages if line.startswith("out of memory")]
    assert [line.split(";")[0] for line in lines] == [
        "out of memory with 64 windows at a time (CUDA out of memory. Tried to allocate 2.00 GiB.)",
        "out of memory with 32 windows at a time (CUDA out of memory. Tried to allocate 2.00 GiB.)",
    ]
    assert "--set micro_batch=16 begins so" in lines[-1]
    assert largest_difference(plain, greedy) < 1e-5
    ours, theirs = (c.meta["training"]["final_train_loss"] for c in (plain, greedy))
    assert ours == pytest.approx(theirs, rel=1e-5)


def test_dropout_draws_the_same_after_memory_ran_out_as_with_small_parts_from_the_start(tmp_path, monkeypatch):
    monkeypatch.setitem(registry._models, "greedy", Greedy)
    tight = trained(tmp_path / "tight", "greedy", dropout=0.3)
    small = trained(tmp_path / "small", "gru", dropout=0.3, micro_batch=16)
    assert largest_difference(tight, small) == 0.0


def test_a_window_that_does_not_fit_alone_is_an_error_with_a_remedy(tmp_path, monkeypatch):
    class Huge(GRU):
        def forward(self, x):
            if self.training and torch.is_grad_enabled() and len(x) != 4 and len(x) != 8:  # but for the memory plan
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return super().forward(x)

    monkeypatch.setitem(registry._models, "huge", Huge)
    with pytest.raises(TrainingError, match=r"OutOfMemoryError: .* in epoch 1, step 1; give --set micro_batch=N"):
        trained(tmp_path / "huge", "huge", batch_size=3)


def test_other_errors_of_a_network_are_not_taken_for_a_lack_of_memory(tmp_path, monkeypatch):
    class Wrong(GRU):
        def forward(self, x):
            if self.training and len(x) == 64:
                raise RuntimeError("shape '[3]' is invalid")
            return super().forward(x)

    monkeypatch.setitem(registry._models, "wrong", Wrong)
    with pytest.raises(TrainingError, match=r"got RuntimeError: shape .* in epoch 1, step 1; mend the cause"):
        trained(tmp_path / "wrong", "wrong")


def test_validation_that_does_not_fit_is_made_in_halves(tmp_path, monkeypatch):
    class Narrow(GRU):
        def forward(self, x):
            if len(x) > 64:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return super().forward(x)

    monkeypatch.setitem(registry._models, "narrow", Narrow)
    plain, narrow = (trained(tmp_path / name, name) for name in ("gru", "narrow"))
    ours, theirs = (c.meta["training"]["best_validation_wql"] for c in (plain, narrow))
    assert ours == pytest.approx(theirs, rel=1e-6)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, when its compiler is loaded
def test_without_a_compiler_training_goes_on_and_says_so_once(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("CXX", "/nothing/g++")
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", ("/nothing/g++",))
    monkeypatch.setattr("torch._inductor.config.force_disable_caches", True)
    plain = train(tmp_path / "plain", run_of("dlinear", epochs=1), rows=200)
    with caplog.at_level(logging.WARNING):
        compiled = train(tmp_path / "compiled", run_of("dlinear", epochs=1, compile=True), rows=200)
    said = [line for line in caplog.messages if line.startswith("compile: expected torch.compile to work here")]
    assert len(said) == 1
    assert "\n" not in said[0]
    assert largest_difference(plain, compiled) == 0.0


def test_bf16_agrees_with_fp32_within_one_percent_of_wql(tmp_path):
    found = {}
    for precision in ("fp32", "bf16"):
        run = run_of("gru", precision=precision, epochs=4, hidden_size=16)
        found[precision] = train(tmp_path / precision, run, rows=600).meta["scores"]["validation"]["wql"]["mean"]
    assert found["fp32"] != found["bf16"]
    assert found["bf16"] == pytest.approx(found["fp32"], rel=0.01)


def test_the_order_of_windows_does_not_depend_on_how_they_are_divided():
    run = run_of()
    data = prepare(request_trace(500), run.data)
    picks = torch.from_numpy(data.split.train[:67])
    shares = [World(rank=rank, size=4, local_size=4).share(picks) for rank in range(4)]
    assert torch.equal(torch.cat([own for own, _ in shares]), picks)
    assert [counted for _, counted in shares] == [17, 17, 17, 16]


def test_a_batch_smaller_than_the_number_of_processes_gives_every_one_something_to_do():
    shares = [World(rank=rank, size=3, local_size=3).share(torch.tensor([5, 9])) for rank in range(3)]
    assert [(own.tolist(), counted) for own, counted in shares] == [([5], 1), ([9], 1), ([5], 0)]
