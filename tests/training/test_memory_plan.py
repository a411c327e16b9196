"""Memory is foreseen before a training starts, and a batch that would not fit is divided."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest
import torch

from tests.training.test_fit import run_of, train
from tests.training.traces import request_trace
from training import memory_plan
from training.memory_plan import MemoryPlan, plan_memory
from training.run import build_model, prepare, window_source
from training.world import World

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def steady_process(monkeypatch):
    """What this process itself uses must not blur what a training needs."""
    monkeypatch.setattr(memory_plan, "used_bytes", lambda device: 400_000_000)
    monkeypatch.setattr(memory_plan, "peak_bytes", lambda device: 0)


def plan(model: str, *, world: World | None = None, **settings) -> MemoryPlan:
    run = run_of(model, **{"batch_size": 10_000, **settings})
    data = prepare(request_trace(3000), run.data)
    built = build_model(data, run)
    return plan_memory(built, window_source(data, CPU), data.split, config=run, world=world or World())


@pytest.mark.parametrize("model", ["lstm", "gru", "dlinear", "transformer", "multiscale"])
def test_more_is_foreseen_for_more_windows_and_less_for_parts_of_them(model):
    whole, part, shared = plan(model), plan(model, micro_batch=100), plan(model, world=World(size=2, local_size=2))
    assert 400_000_000 < part.needed_bytes < shared.needed_bytes < whole.needed_bytes
    assert (whole.micro_batch, part.micro_batch) == (0, 100)


def test_a_transformer_that_is_recomputed_needs_less():
    assert plan("transformer", gradient_checkpointing=True, num_layers=4).needed_bytes < 0.7 * (
        plan("transformer", num_layers=4).needed_bytes
    )


def test_planning_changes_nothing():
    run = run_of("transformer")
    data = prepare(request_trace(500), run.data)
    model = build_model(data, run)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    plan_memory(model, window_source(data, CPU), data.split, config=run, world=World())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any("forward" in module.__dict__ for module in model.modules())


def test_a_batch_that_would_not_fit_is_divided_from_the_start_with_the_same_result(tmp_path, monkeypatch, caplog):
    plain = train(tmp_path / "plain", run_of("gru"))
    monkeypatch.setattr(memory_plan, "used_bytes", lambda device: 0)
    needed = plan("gru", batch_size=64).needed_bytes
    monkeypatch.setattr(memory_plan, "usable_bytes", lambda device: needed)
    with caplog.at_level(logging.INFO):
        tight = train(tmp_path / "tight", run_of("gru"))
    (line,) = [text for text in caplog.messages if "needs about" in text]
    assert line.startswith("tight: training needs about")
    assert line.endswith("this process can use on cpu; 32 windows of a batch at a time, with the same result")
    for a, b in zip(plain.model.parameters(), tight.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
    asked = tight.meta["config"]["fit"]
    assert asked == plain.meta["config"]["fit"]


def test_a_process_shares_the_hosts_memory_with_the_others_on_its_node(monkeypatch):
    monkeypatch.setattr(memory_plan, "usable_bytes", lambda device: 8_000_000_000)
    assert plan("gru", world=World(size=4, local_size=2)).usable_bytes == 4_000_000_000


def test_where_parts_are_no_help_the_line_says_what_is(caplog):
    found = replace(plan("gru"), needed_bytes=1_234_000_000, usable_bytes=812_000_000)
    with caplog.at_level(logging.INFO):
        found.say("gru")
    assert caplog.messages == [
        "gru: training needs about 1.2 GB of the 812 MB that this process can use on cpu; end other programs, or give "
        "a smaller --context, --set batch_size or micro_batch"
    ]


def test_a_process_that_is_too_large_already_does_not_train_window_by_window(monkeypatch):
    monkeypatch.setattr(memory_plan, "usable_bytes", lambda device: 300_000_000)
    assert plan("gru").micro_batch == 0
