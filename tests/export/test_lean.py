"""The leaner form of a model: the same function, in fewer nodes."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from torch import nn

from export.lean import FoldedMember, LeanModel, independent_rows, lean
from export.to_onnx import to_onnx
from export.zero_states import drop_zero_states
from training.forecaster import Forecaster
from training.quantile_model import Ensemble, QuantileModel
from training.registry import register_model

LEVELS = (0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
MODELS = ("dlinear", "gru", "lstm", "transformer", "multiscale")
SETTINGS: dict[str, dict[str, Any]] = {
    "bins": {"context": 24, "demand": True},
    "clock": {"context": 24, "demand": True, "calendar": ("day", "week")},
    "wide steps": {"context": 72, "demand": True, "calendar": ("day",), "ratio": 3, "recent": 20},
    "requests": {"context": 60, "anchored": True, "recent": 12},
    "requests, no clock, no anchor": {"context": 24},
    "no log, no centre": {"context": 24, "log": False, "center": False},
    "no centre": {"context": 24, "demand": True, "center": False},
}
SETTING = pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS)


def forecaster(model: str, *, seed: int = 0, crossing: bool = True, **settings: Any) -> Forecaster:
    """Random weights and statistics; with `crossing` a calibration that pushes quantiles across each other."""
    torch.manual_seed(seed)
    params = {"d_model": 16} if model == "transformer" else {"hidden_size": 16} if model != "dlinear" else {}
    built = Forecaster(model=model, params=params, channels=3, horizon=5, levels=LEVELS, **settings)
    scaling = built.scaling
    for buffer, values in (
        (scaling.unit, [1.0, 700.0, 90.0]),
        (scaling.alpha, [0.1, 0.0, 0.3]),
        (scaling.spread, [0.3, 0.5, 0.8]),
        (scaling.level_mean, [2.0, 1.0, 1.5]),
        (scaling.level_spread, [0.5, 0.6, 0.7]),
    ):
        buffer.copy_(torch.tensor(values))
    if not settings.get("anchored"):
        scaling.least.copy_(torch.tensor([0.5, 0.2, 0.1]))
    with torch.no_grad():
        built.head.weight.normal_(0, 0.1)
        built.offset.normal_(0, 0.3)
        if not crossing:
            built.offset.copy_(built.offset.sort(dim=2).values)
    return built.eval()


def inputs(model: QuantileModel, context: int, batch: int = 40) -> dict[str, torch.Tensor]:
    rng = np.random.default_rng(0)
    values = rng.exponential(1.0, (batch, context, 3)) * [5.0, 2000.0, 300.0] * rng.choice([0.01, 1, 30], (batch, 1, 1))
    values[0], values[1, 7, 1] = 0, 1e6
    found = {"context": torch.from_numpy(values.astype(np.float32))}
    return found | ({"time_s": torch.from_numpy(1.7e9 + 1e6 * rng.random(batch))} if model.takes_time else {})


@torch.no_grad()
def outputs(model: nn.Module, *given: torch.Tensor) -> list[torch.Tensor]:
    found = model(*given)
    return list(found) if isinstance(found, tuple) else [found]


def assert_same(model: QuantileModel, given: dict[str, torch.Tensor]) -> None:
    """On the scale that models work on, where a spike is 14 and float32 has 1e-7 of it to lose at each step."""
    exact = copy.deepcopy(model).double()
    expected = outputs(exact, *[tensor.double() for tensor in given.values()])
    got = outputs(lean(model), *given.values())
    assert len(got) == len(expected)
    for a, b in zip(got, expected, strict=True):
        assert a.shape == b.shape
        assert (torch.signbit(a) == 0).all()
        assert (a.diff(dim=3) >= 0).all()
        scaled, wanted = (exact.scaling.to_scale(x.double().transpose(2, 3)) for x in (a, b))
        near = (scaled > 0) == (wanted > 0)  # what is about half a request may fall on either side
        assert near.float().mean() > 0.999
        # Without the log the spike is a thousand on that scale, and a sum of such numbers has less left near 0.
        atol = 2e-5 if exact.scaling.log else 2e-4
        torch.testing.assert_close(scaled[near], wanted[near], rtol=1e-6, atol=atol)


@SETTING
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("crossing", [True, False], ids=["crossing", "in order"])
def test_the_lean_form_is_the_same_function(model: str, setting: dict[str, Any], crossing: bool) -> None:
    built = forecaster(model, crossing=crossing, **setting)
    assert isinstance(lean(built), LeanModel)
    assert_same(built, inputs(built, setting["context"]))


@pytest.mark.parametrize("setting", [SETTINGS["wide steps"], SETTINGS["requests"]], ids=["load", "requests"])
def test_an_ensembles_lean_form_is_the_same_function(setting: dict[str, Any]) -> None:
    members = [forecaster(model, seed=seed, **setting) for seed, model in enumerate(("gru", "dlinear", "multiscale"))]
    ensemble = Ensemble(list(members)).eval()
    ensemble.offset.copy_(members[0].offset)
    assert_same(ensemble, inputs(ensemble, setting["context"]))


def graph(model: nn.Module, given: dict[str, torch.Tensor]) -> onnx.ModelProto:
    return onnx.load_from_string(to_onnx(model, {name: tensor[:2] for name, tensor in given.items()}))


@SETTING
def test_the_lean_graph_is_smaller(setting: dict[str, Any]) -> None:
    built = forecaster("gru", **setting)
    given = inputs(built, setting["context"])
    assert len(graph(lean(built), given).graph.node) < 0.75 * len(graph(built, given).graph.node)


def test_an_affine_network_becomes_one_matrix() -> None:
    built = forecaster("dlinear", context=24, demand=True, calendar=("day",))
    folded = lean(built)
    assert isinstance(folded, LeanModel)
    assert isinstance(folded.members[0], FoldedMember)
    # Of each channel five steps ahead and its level, and the clock.
    assert folded.members[0].rows.out_features == 3 * 5 + 3 + 8
    assert folded.members[0].head.head.in_features == folded.members[0].rows.out_features


def test_an_affine_network_on_empirical_quantiles_becomes_one_matrix_too() -> None:
    built = forecaster("dlinear", context=24, anchored=True)
    folded = lean(built)
    assert isinstance(folded, LeanModel)
    assert isinstance(folded.members[0], FoldedMember)


def test_independent_rows_make_up_all_others() -> None:
    rng = torch.Generator().manual_seed(0)
    thin = torch.randn(5, 30, generator=rng, dtype=torch.float64)
    matrix = torch.cat(
        (thin, torch.randn(20, 5, generator=rng, dtype=torch.float64) @ thin, torch.zeros(2, 30).double())
    )
    shuffled = matrix[torch.randperm(27, generator=rng)]
    rows, combined = independent_rows(shuffled)
    assert len(rows) == 5
    torch.testing.assert_close(combined @ shuffled[rows], shuffled, rtol=0, atol=1e-12)


def test_rows_of_one_channel_stay_of_that_channel() -> None:
    rng = torch.Generator().manual_seed(0)
    parts = [torch.randn(6, 2, generator=rng).double() @ torch.randn(2, 9, generator=rng).double() for _ in range(2)]
    rows, combined = independent_rows(torch.block_diag(*parts))
    assert [row < 6 for row in rows] == [True, True, False, False]
    assert (combined[:6, 2:] == 0).all()
    assert (combined[6:, :2] == 0).all()


class Threshold(nn.Module):
    def __init__(self, limit: float, other: float, *, twice: bool = False) -> None:
        super().__init__()
        self.limit, self.other, self.twice = limit, other, twice

    def forward(self, context: torch.Tensor) -> torch.Tensor:
        above = context > self.limit
        found = torch.where(above, context, self.other)
        return (found + above.float() if self.twice else found)[..., None]


@pytest.mark.parametrize("exporter", ["legacy", "dynamo"])
def test_a_threshold_becomes_one_operator(exporter: str) -> None:
    context = torch.tensor([[[0.5, -1.0]], [[1.0, 1.0 + 2**-23]], [[1e9, -0.0]]])
    model = onnx.load_from_string(to_onnx(Threshold(1.0, 0.0).eval(), {"context": context}, exporter=exporter))
    assert [node.op_type for node in model.graph.node][:1] == ["ThresholdedRelu"]
    assert not {"Where", "Greater"} & {node.op_type for node in model.graph.node}
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (got,) = session.run(None, {"context": context.numpy()})
    np.testing.assert_array_equal(got[..., 0], Threshold(1.0, 0.0)(context)[..., 0].numpy())
    assert not np.signbit(got).any()


@pytest.mark.parametrize("module", [Threshold(1.0, 2.0), Threshold(1.0, 0.0, twice=True)], ids=["another", "twice"])
def test_another_choice_stays(module: nn.Module) -> None:
    context = torch.rand(2, 3, 2) * 2
    model = graph(module, {"context": context})
    assert {"Where", "Greater"} <= {node.op_type for node in model.graph.node}


@pytest.mark.parametrize("setting", ["bins", "requests"])
def test_what_is_no_number_stays_none(setting: str) -> None:
    """The runtime takes its fallback then: a zero it would believe."""
    built = forecaster("gru", **SETTINGS[setting])
    built.head.bias.data[3] = float("nan")
    given = inputs(built, SETTINGS[setting]["context"], batch=3)
    assert all(torch.isnan(output).any() for output in outputs(lean(built), *given.values())[:1])
    session = ort.InferenceSession(to_onnx(lean(built), given), providers=["CPUExecutionProvider"])
    found = session.run(["forecast"], {name: tensor.numpy() for name, tensor in given.items()})
    assert np.isnan(found[0]).any()


def test_load_is_compared_with_its_least_by_one_operator() -> None:
    built = forecaster("gru", context=24, demand=True)
    operators = [node.op_type for node in graph(lean(built), inputs(built, 24)).graph.node]
    assert operators.count("ThresholdedRelu") == 1
    assert not {"Where", "Greater", "GreaterOrEqual"} & set(operators)


@pytest.mark.parametrize("model", ["gru", "multiscale"])
def test_another_network_stays(model: str) -> None:
    built = forecaster(model, context=24)
    folded = lean(built)
    assert isinstance(folded, LeanModel)
    assert not isinstance(folded.members[0], FoldedMember)


def test_a_users_affine_network_is_found_too(monkeypatch: pytest.MonkeyPatch) -> None:
    from training import registry

    monkeypatch.setattr(registry, "_models", dict(registry._models))

    @register_model("flat")
    class Flat(nn.Module):
        def __init__(self, channels: int, context: int, horizon: int) -> None:
            super().__init__()
            self.layer = nn.Linear(channels * context, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(x.flatten(1))

    torch.manual_seed(0)
    built = Forecaster(model="flat", params={}, channels=3, context=10, horizon=5, levels=LEVELS).eval()
    folded = lean(built)
    assert isinstance(folded, LeanModel)
    assert isinstance(folded.members[0], FoldedMember)
    assert_same(built, inputs(built, 10))


def test_a_model_that_is_no_forecaster_is_left_as_it_is() -> None:
    module = nn.Linear(3, 3)
    assert lean(module) is module


def test_a_trained_model_is_not_changed() -> None:
    built = forecaster("gru", context=24)
    before = {name: tensor.clone() for name, tensor in built.state_dict().items()}
    lean(built)
    assert all(torch.equal(tensor, before[name]) for name, tensor in built.state_dict().items())


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase], *, start: float) -> None:
        super().__init__()
        self.rnn, self.start = kind(3, 4, batch_first=True), start

    def forward(self, context: torch.Tensor) -> torch.Tensor:
        state = torch.full((1, context.shape[0], 4), self.start)
        states, _ = self.rnn(context, (state, state) if isinstance(self.rnn, nn.LSTM) else state)
        return states[:, -1:, :, None]


@pytest.mark.parametrize("kind", [nn.GRU, nn.LSTM])
@pytest.mark.parametrize("start", [0.0, 0.5])
def test_first_states_go_when_they_are_zero_and_only_then(kind: type[nn.RNNBase], start: float) -> None:
    torch.manual_seed(0)
    module, context = Recurrent(kind, start=start).eval(), torch.rand(2, 5, 3)
    model = graph(module, {"context": context})
    (node,) = [node for node in model.graph.node if node.op_type in ("GRU", "LSTM")]
    assert (len(node.input) > 4) == (start != 0)
    drop_zero_states(model)  # once more changes nothing
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for batch in (1, 2):
        (got,) = session.run(None, {"context": context[:batch].numpy()})
        with torch.no_grad():
            np.testing.assert_allclose(got, module(context[:batch]).numpy(), rtol=1e-5, atol=1e-6)
