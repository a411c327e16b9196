"""Several models side by side: shapes as documented, numbers measured."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn

from tests.training.frames import request_frame, small
from training.errors import ConfigError, DeviceError, TraceError
from training.model_config import ModelConfig, ModelType
from training.model_interface import BasePredictor
from training.model_results import PredictionResult, TrainingResult
from training.registry import register_model
from training.request_predictor import EnhancedRequestPredictor, create_enhanced_predictor

pytestmark = pytest.mark.usefixtures("own_registry")


class Broken(BasePredictor):
    """A custom class with everything of its own, and nonsense for a forecast."""

    def train(self, data, validation_split=0.2):
        return TrainingResult(success=True, final_loss=0.1, best_loss=0.1, epochs_trained=1)

    def predict(self, data, steps=None):
        last = float(data["Timestamp"].iloc[-1])
        return PredictionResult([last + 1e5 * (i + 1) for i in range(steps)], [1e6] * steps, [1e6] * steps, 1.0)


@pytest.fixture(scope="module")
def predictor():
    made = create_enhanced_predictor(models=[], device="cpu")
    for name in ("gru", "dlinear"):
        made.add_model(name, small(custom_params={"hidden_size": 8} if name == "gru" else {}))
    assert all(result.success for result in made.train_models(request_frame()).values())
    return made


def test_defaults_are_lstm_and_dlinear():
    predictor = create_enhanced_predictor()
    assert predictor.get_active_models() == ["lstm", "dlinear"]
    assert predictor.get_available_models()[:4] == ["lstm", "gru", "dlinear", "transformer"]


def test_the_next_request_has_the_documented_shape(predictor):
    frame = request_frame()
    found = predictor.predict_next_request(frame)
    assert set(found) == {"predictions", "summary", "model_info"}
    for name in ("gru", "dlinear"):
        row = found["predictions"][name]
        assert set(row) == {"timestamp", "request_tokens", "response_tokens", "confidence", "method"}
        assert row["timestamp"] > frame["Timestamp"].iloc[-1] == found["summary"]["last_timestamp"]
        assert 0 < row["confidence"] < 1
        assert row["method"] == f"quantile median of {name}"
        assert found["model_info"][name]["is_trained"]


def test_several_requests_have_the_documented_shape(predictor):
    found = predictor.predict_multiple_requests(request_frame(), num_requests=5)
    assert (found["num_requests"], found["historical_data_size"], found["failed"]) == (5, 300, {})
    rows = found["predictions"]["gru"]
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5]
    assert set(rows[0]) == {"timestamp", "request_tokens", "response_tokens", "confidence", "step"}
    assert (np.diff([row["timestamp"] for row in rows]) > 0).all()
    first = predictor.predict_next_request(request_frame())["predictions"]["gru"]
    assert {key: first[key] for key in ("timestamp", "request_tokens")} == {
        key: rows[0][key] for key in ("timestamp", "request_tokens")
    }


@pytest.mark.parametrize("call", ["predict_next_request", "predict_multiple_requests", "compare_models"])
def test_fewer_than_ten_rows_are_said_so(predictor, call):
    assert getattr(predictor, call)(request_frame().iloc[:0, :0])["actual"] == 0
    found = getattr(predictor, call)(request_frame().head(9))
    assert set(found) == {"error", "min_required", "actual"}
    assert found["actual"] == 9
    assert found["min_required"] == (11 if call == "compare_models" else 10)


@pytest.mark.parametrize("rows", [10, 11, 16, 17, 18, 30])
def test_any_history_from_ten_rows_predicts_and_compares(predictor, rows):
    frame = request_frame().head(rows)
    assert set(predictor.predict_next_request(frame)["predictions"]) == {"gru", "dlinear"}
    assert rows == 10 or predictor.compare_models(frame)["performance_summary"]["best_model"] in ("gru", "dlinear")


def test_a_table_that_is_none_is_an_error_not_a_result(predictor):
    with pytest.raises(TraceError, match="column 'Timestamp'"):
        predictor.predict_next_request(request_frame().drop(columns="Timestamp"))
    with pytest.raises(TraceError, match="sort the rows"):
        predictor.train_models(request_frame().iloc[::-1])
    with pytest.raises(ConfigError, match="validation_split: expected a share"):
        predictor.train_models(request_frame(), validation_split=20)
    with pytest.raises(ConfigError, match="num_requests: expected a whole number from 1"):
        predictor.predict_multiple_requests(request_frame(), 0)


def test_without_models_the_remedy_is_named():
    with pytest.raises(ConfigError, match="expected at least one active model, got none; call add_model"):
        EnhancedRequestPredictor().predict_next_request(request_frame())


def test_a_broken_model_comes_last_and_a_failing_one_after_it(predictor, caplog):
    class Fails(Broken):
        def predict(self, data, steps=None):
            raise RuntimeError("no")

    both = EnhancedRequestPredictor(device="cpu")
    both.model_manager.active_models |= predictor.model_manager.active_models
    register_model(ModelType.CUSTOM)(Broken)
    both.add_model("broken", ModelConfig(model_type=ModelType.CUSTOM))
    register_model(ModelType.CUSTOM)(Fails)
    both.add_model("fails", ModelConfig(model_type=ModelType.CUSTOM))
    found = both.compare_models(request_frame(), steps=2)
    summary = found["performance_summary"]
    assert summary["ranking"][-2:] == ["broken", "fails"]
    assert summary["best_model"] == min(("gru", "dlinear"), key=lambda name: found[name]["wql"])
    assert found["broken"]["confidence"] == 1.0  # it says so; the ranking does not listen
    assert found["broken"]["wql"] > 100 * found["gru"]["wql"]
    assert found["fails"]["error"] == "RuntimeError: no"
    assert (found["fails"]["rank"], summary["origins"]) == (4, 50)
    assert 0 < found["gru"]["prediction_time"] < 1
    assert summary["reference_wql"] < 2
    assert set(both.predict_next_request(request_frame())["summary"]["failed"]) == {"fails"}
    assert "fails: no prediction" in caplog.text


def test_the_comparison_is_that_of_rolling_forecasts(predictor):
    from training.backtest import rolling_forecasts
    from training.metrics import wql
    from training.request_frame import frame_to_trace
    from training.series import build_series
    from training.windows import WindowSource

    frame = request_frame(60, seed=4)
    found = predictor.compare_models(frame, steps=1)["gru"]["wql"]
    model = predictor.model_manager.active_models["gru"]._checkpoint.model
    series = build_series(frame_to_trace(frame), kind="requests")
    source = WindowSource(series, context=16, horizon=1, device=torch.device("cpu"))
    forecast, target = rolling_forecasts(model, source, np.arange(16, 59))
    assert found == pytest.approx(wql(forecast[:, :1], target, model.levels).mean(), rel=1e-5)


def test_a_model_that_fails_to_train_leaves_the_others_alone(caplog):
    class Forgets(Broken):
        def train(self, data, validation_split=0.2):
            pass

    register_model(ModelType.CUSTOM)(Forgets)
    predictor = EnhancedRequestPredictor(device="cpu")
    predictor.add_model("custom")
    predictor.add_model("long", small(model_type="dlinear", sequence_length=2000))
    predictor.add_model("dlinear", small())
    results = predictor.train_models(request_frame())
    assert [result.success for result in results.values()] == [False, False, True]
    assert "Forgets.train: expected a TrainingResult, got NoneType" in results["custom"].metadata["error"]
    assert "TraceError: train part: expected at least one window" in results["long"].metadata["error"]
    assert set(predictor.predict_next_request(request_frame())["predictions"]) == {"custom", "dlinear"}


def test_a_custom_class_gets_its_history_from_its_result():
    register_model(ModelType.CUSTOM)(Broken)
    predictor = EnhancedRequestPredictor(device="cpu")
    predictor.add_model("custom")
    predictor.train_models(request_frame())
    model = predictor.model_manager.active_models["custom"]
    assert model.training_history == {"final_loss": 0.1, "best_loss": 0.1, "epochs_trained": 1}


def test_a_custom_class_may_return_arrays_and_one_confidence(caplog):
    class Arrays(Broken):
        def predict(self, data, steps=None):
            last = float(data["Timestamp"].iloc[-1])
            return PredictionResult(last + 1 + np.arange(steps), np.full(steps, 5), np.full(steps, 6), 0.5)

    class TooSure(Broken):
        def predict(self, data, steps=None):
            return PredictionResult([1e9] * steps, [1.0] * steps, [1.0] * steps, 7.0)

    class TooFew(Broken):
        def predict(self, data, steps=None):
            return PredictionResult([1e9], [1.0], [float("nan")], 0.1)

    predictor = EnhancedRequestPredictor(device="cpu")
    for cls in (Arrays, TooSure, TooFew):
        register_model(ModelType.CUSTOM)(cls)
        predictor.add_model(cls.__name__, ModelConfig(model_type=ModelType.CUSTOM))
    found = predictor.predict_multiple_requests(request_frame(), 2)
    assert [row["confidence"] for row in found["predictions"]["Arrays"]] == [0.5, 0.5]
    assert found["predictions"]["Arrays"][1]["request_tokens"] == 5.0
    assert "expected confidence between 0 and 1, got 7.0" in found["failed"]["TooSure"]
    assert "expected 2 finite timestamps, got [1000000000.0]" in found["failed"]["TooFew"]
    one = predictor.predict_next_request(request_frame())
    assert "expected 1 finite response_tokens, got [nan]" in one["summary"]["failed"]["TooFew"]
    assert one["predictions"]["Arrays"]["method"] == "predict of Arrays"


def test_names_that_are_unknown_are_named(caplog):
    predictor = EnhancedRequestPredictor()
    with pytest.raises(ConfigError, match="did you mean 'transformer'"):
        predictor.add_model("transfomer")
    with pytest.raises(ConfigError, match="did you mean 'hidden_size'"):
        predictor.add_model("gru", ModelConfig(custom_params={"hidden": 3}))
    with caplog.at_level(logging.ERROR):
        assert predictor.add_models(["gru", "grru"]) == {"gru": True, "grru": False}
    assert "did you mean 'gru'" in caplog.text


def test_models_added_again_by_name_stay_trained(predictor):
    before = predictor.model_manager.active_models["gru"]
    assert predictor.add_models(["gru"]) == {"gru": True}
    assert predictor.model_manager.active_models["gru"] is before


def test_save_and_load_under_another_name(predictor, tmp_path, caplog):
    path = str(tmp_path / "deep" / "gru.pth")
    assert predictor.save_model("gru", path)
    other = EnhancedRequestPredictor(device="cpu")
    assert other.load_model("mine", path, ModelConfig(model_type=ModelType.GRU, model_name="loaded"))
    frame = request_frame()
    mine = other.predict_next_request(frame)
    assert mine["predictions"]["mine"] == predictor.predict_next_request(frame)["predictions"]["gru"]
    assert mine["model_info"]["mine"]["model_name"] == "loaded"
    with caplog.at_level(logging.ERROR):
        assert not other.load_model("gru", path.replace("gru", "gruu"))
        assert not other.save_model("gru", path)
    assert f"did you mean '{path}'" in caplog.text
    assert "save_model: expected an active model, got 'gru'" in caplog.text
    other.add_model("lstm")
    with pytest.raises(ConfigError, match="lstm: expected a trained model"):
        other.save_model("lstm", path)


def test_confidence_tells_a_trained_model_from_one_trained_for_a_single_step():
    # Arrivals that the last two requests foretell, so that training pays.
    frame = request_frame(600)
    frame["Timestamp"] = np.cumsum(np.tile([0.1, 0.1, 5.0], 200))
    predictor = EnhancedRequestPredictor(device="cpu")
    predictor.add_model("step", small(model_type="gru", batch_size=100_000))
    predictor.add_model("well", small(model_type="gru", epochs=12, learning_rate=0.01))
    results = predictor.train_models(frame)
    found = predictor.predict_next_request(frame)["predictions"]
    assert results["step"].epochs_trained == 1
    assert found["well"]["confidence"] > found["step"]["confidence"] + 0.1
    assert predictor.compare_models(frame)["performance_summary"]["best_model"] == "well"


def test_two_threads_get_the_answers_of_one(predictor):
    frame = request_frame(400, seed=2)
    histories = [frame.head(rows) for rows in range(100, 400, 10)]

    def ask(history):
        return predictor.predict_next_request(history)["predictions"]

    alone = [ask(history) for history in histories]
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(ask, histories)) == alone


def test_switching_moves_every_model(predictor):
    assert predictor.switch_device("cpu")
    assert {str(m.device) for m in predictor.model_manager.active_models.values()} == {"cpu"}
    if not torch.cuda.is_available():
        with pytest.raises(DeviceError, match="device cuda: expected a CUDA GPU"):
            predictor.switch_device("cuda")
        with pytest.raises(DeviceError, match="device cuda: expected a CUDA GPU"):
            create_enhanced_predictor(device="cuda")
    model = predictor.model_manager.active_models["gru"]
    model.model.to("meta")  # a device that every machine has
    assert next(model._checkpoint.model.parameters()).device.type == "meta"


def test_a_custom_model_that_mends_its_rows_in_place_touches_neither_the_caller_nor_the_others():
    @register_model("mutating")
    class Mutating(BasePredictor):
        def build_model(self):
            return nn.Linear(3, 4)

        def prepare_data(self, data):
            data["Request tokens"] = data["Request tokens"].clip(upper=5)
            return super().prepare_data(data[data["Response tokens"] > data["Response tokens"].median()])

    def predicted(*names):
        predictor = EnhancedRequestPredictor(device="cpu")
        for name in names:
            predictor.add_model(name, ModelConfig(model_type=name, epochs=1, sequence_length=10, prediction_horizon=2))
        predictor.train_models(data)
        return predictor.predict_next_request(data)

    data = request_frame()
    before = data.copy()
    both = predicted("mutating", "dlinear")
    assert data.equals(before)
    assert both["predictions"]["dlinear"] == predicted("dlinear")["predictions"]["dlinear"]
    assert both["predictions"]["mutating"]["timestamp"] > data["Timestamp"].iloc[-1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"timestamps": [-5.0]}, "expected timestamps from"),
        ({"request_tokens": [-5.0]}, "expected request_tokens of 0 or more"),
    ],
)
def test_a_prediction_that_cannot_be_is_a_failure_by_name(changes, message):
    data = request_frame()
    good = {"timestamps": [1e9], "request_tokens": [1.0], "response_tokens": [1.0], "confidence": [0.5]}

    @register_model("odd")
    class Odd(BasePredictor):
        def predict(self, data, steps=None):
            return PredictionResult(**(good | changes), model_name="odd", prediction_time=0.0, metadata=None)

    predictor = EnhancedRequestPredictor(device="cpu")
    predictor.add_model("odd")
    found = predictor.predict_next_request(data)
    assert message in found["summary"]["failed"]["odd"]
    assert found["predictions"] == {}


def test_one_name_may_be_given_alone_and_a_file_may_be_loaded_under_a_free_name(tmp_path):
    assert EnhancedRequestPredictor(device="cpu").add_models("lstm") == {"lstm": True}
    predictor = create_enhanced_predictor(models=[ModelType.GRU], device="cpu")
    assert predictor.get_active_models() == ["gru"]
    predictor.add_model("gru", ModelConfig(model_type="gru", epochs=1, sequence_length=10, prediction_horizon=2))
    predictor.train_models(request_frame())
    assert predictor.save_model("gru", str(tmp_path / "best.pth"))
    assert predictor.load_model("best", str(tmp_path / "best.pth"))
    assert predictor.get_active_models() == ["gru", "best"]


@pytest.mark.parametrize("name", ["", "a b/c", 3])
def test_a_model_needs_a_name_that_can_be_a_folder(name):
    with pytest.raises(ConfigError, match="register_model: expected a name of letters"):
        register_model(name)
