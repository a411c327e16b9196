"""Training in less memory and in 16 bits."""

from __future__ import annotations

import logging

import pytest
import torch

from tests.training.test_fit import run_of, train
from tests.training.traces import request_trace
from training import device, fit, steps
from training.config import ForecasterConfig, build_runs
from training.economy import Economy
from training.errors import ConfigError
from training.forecaster import Forecaster, build_network
from training.run import prepare
from training.windows import WindowSource

CPU = torch.device("cpu")


def network(model: str, **params):
    torch.manual_seed(0)
    return build_network(model, params, channels=6, context=32, horizon=3, values=3)


def saved_bytes(built, *, recompute: bool) -> tuple[int, list[torch.Tensor]]:
    """Bytes that a forward pass keeps for the backward pass, and the gradients."""
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    torch.manual_seed(1)
    x = torch.randn(16, 32, 6)
    built.zero_grad()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        with Economy(built, dtype=None, recompute=recompute):
            loss = built(x).square().sum()
        total = sum(kept.values())
    loss.backward()
    return total, [p.grad.clone() for p in built.parameters()]


@pytest.mark.parametrize(
    ("model", "params"),
    [
        ("transformer", {"num_layers": 4, "dropout": 0.2}),
        ("gru", {"num_layers": 2, "dropout": 0.2}),
        ("lstm", {}),
        ("dlinear", {}),
    ],
)
def test_recomputed_activations_give_the_same_gradients_in_less_memory(model, params):
    built = network(model, **params)
    plain, wanted = saved_bytes(built, recompute=False)
    less, found = saved_bytes(built, recompute=True)
    assert all(torch.equal(a, b) for a, b in zip(wanted, found, strict=True))
    assert less < (plain / 2 if model == "transformer" else plain)


def test_a_transformer_is_recomputed_layer_by_layer_so_memory_follows_the_depth():
    shallow, deep = (saved_bytes(network("transformer", num_layers=n), recompute=True)[0] for n in (2, 8))
    plain = [saved_bytes(network("transformer", num_layers=n), recompute=False)[0] for n in (2, 8)]
    assert deep - shallow < (plain[1] - plain[0]) / 4


@pytest.mark.parametrize("model", ["transformer", "gru"])
def test_training_with_recomputed_activations_ends_with_the_same_weights(tmp_path, model):
    plain = train(tmp_path / "plain", run_of(model, epochs=2), rows=200)
    less = train(tmp_path / "less", run_of(model, epochs=2, gradient_checkpointing=True), rows=200)
    for (name, a), b in zip(plain.model.state_dict().items(), less.model.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_forward_is_as_before_afterwards():
    built = network("transformer")
    with pytest.raises(ZeroDivisionError), Economy(built, dtype=torch.bfloat16, recompute=True):
        raise ZeroDivisionError
    assert not any("forward" in module.__dict__ for module in built.modules())


def test_amp_on_a_cpu_without_16_bit_instructions_is_an_explained_no_op(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    plain = train(tmp_path / "plain", run_of(), rows=200)
    with caplog.at_level(logging.WARNING):
        amp = train(tmp_path / "amp", run_of(precision="amp"), rows=200)
    assert "got cpu without; training stays in fp32" in caplog.text
    assert all(torch.equal(a, b) for a, b in zip(plain.model.parameters(), amp.model.parameters(), strict=True))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("recompute", [False, True])
def test_amp_trains_in_16_bits_close_to_32(tmp_path, monkeypatch, dtype, recompute):
    monkeypatch.setattr(steps, "half_dtype", lambda precision, device: None if precision == "fp32" else dtype)
    plain = train(tmp_path / "plain", run_of(epochs=2), rows=200)
    settings = {"epochs": 2, "precision": "amp", "gradient_checkpointing": recompute}
    amp = train(tmp_path / "amp", run_of(**settings), rows=200)
    assert {p.dtype for p in amp.model.parameters()} == {torch.float32}
    ours, theirs = (c.meta["training"]["best_validation_wql"] for c in (amp, plain))
    assert ours != theirs
    assert ours == pytest.approx(theirs, rel=0.02)


def test_float16_gradients_are_unscaled_once_before_they_are_clipped(tmp_path, monkeypatch):
    norms: dict[torch.dtype | None, list[float]] = {}
    for dtype in (None, torch.float16):
        run = run_of("dlinear", epochs=1, precision="amp", clip_norm=1e5)
        data = prepare(request_trace(200), run.data)
        model = Forecaster(model="dlinear", params={}, channels=3, context=16, horizon=3, levels=run.data.levels)
        torch.manual_seed(0)
        for weight in model.parameters():
            torch.nn.init.normal_(weight, std=0.05)
        model.scaling.fit(data.series, data.split, context=16, horizon=3)
        source = WindowSource(data.series, context=16, horizon=3, device=CPU)
        monkeypatch.setattr(steps, "half_dtype", lambda precision, device, found=dtype: found)
        found = norms.setdefault(dtype, [])

        def remember(windows, loss, model=model, found=found):
            found.append(float(torch.stack([p.grad.norm() for p in model.parameters()]).norm()))

        fit.fit(model, source, data.split, config=run, folder=tmp_path, on_batch=remember)
    assert norms[torch.float16][0] == pytest.approx(norms[None][0], rel=0.02)


def test_cuda_takes_bfloat16_where_it_has_it_and_float16_elsewhere(monkeypatch):
    for supported, expected in ((True, torch.bfloat16), (False, torch.float16)):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, found=supported: found)
        assert device.half_dtype("amp", torch.device("cuda")) is expected


def test_both_are_settings_of_the_command_line():
    run = build_runs(["transformer"], {"precision": "amp", "gradient_checkpointing": True})[0]
    assert (run.fit.precision, run.fit.gradient_checkpointing) == ("amp", True)
    with pytest.raises(ConfigError, match="precision: expected one of fp32, amp, bf16, fp16, got fp8"):
        build_runs(["gru"], {"precision": "fp8"})
    assert ForecasterConfig().model == "gru"
