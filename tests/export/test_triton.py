"""config.pbtxt: read with Triton's own protobuf, and held against the graph that it describes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import DataType, ModelConfig

from export.artifact import export_checkpoint
from export.manifest import manifest_bytes
from export.publish import CONFIG, write_file
from export.triton import MAX_BATCH, config_pbtxt, contract
from runtime.verify import verify

FACTS: dict[str, Any] = {
    "kind": "load",
    "channels": ["requests", "request_tokens"],
    "units": ["requests", "tokens"],
    "clock": "epoch",
    "bin_s": 60.0,
    "step_s": 60.0,
    "context": 50,
    "horizon": 10,
    "levels": [0.1, 0.5, 0.975],
    "inputs": ["context", "time_s"],
}
EARLIER = sorted((Path(__file__).parents[1] / "data/artifacts").glob("*/*"))
TYPES = {"tensor(float)": "TYPE_FP32", "tensor(double)": "TYPE_FP64"}
NUMPY = {"TYPE_FP32": np.float32, "TYPE_FP64": np.float64}


def parsed(text: str) -> ModelConfig:
    return text_format.Parse(text, ModelConfig())


def shapes(tensors: Any) -> list[tuple[str, str, list[int]]]:
    return [(tensor.name, DataType.Name(tensor.data_type), list(tensor.dims)) for tensor in tensors]


def as_before(text: str) -> str:
    """The same in the form that was written until there was a warm-up."""
    text = re.sub(r"^dynamic_batching .*$", "dynamic_batching { }", text, flags=re.M)
    return re.sub(r"^model_warmup \[\n.*?^\]\n", "", text, flags=re.M | re.S)


def test_the_configuration_describes_the_graph_without_its_batch() -> None:
    config = parsed(config_pbtxt(FACTS))
    assert (config.platform, config.backend, config.max_batch_size) == ("onnxruntime_onnx", "onnxruntime", 256)
    assert config.default_model_filename == "model.onnx"
    assert shapes(config.input) == [("context", "TYPE_FP32", [50, 2]), ("time_s", "TYPE_FP64", [1])]
    assert config.input[1].HasField("reshape")
    assert list(config.input[1].reshape.shape) == []
    assert shapes(config.output) == [("forecast", "TYPE_FP32", [10, 2, 3])]
    assert config.version_policy.latest.num_versions == 1


def test_a_second_output_is_listed_and_leaves_the_text_of_one_as_it_was() -> None:
    config = parsed(config_pbtxt({**FACTS, "outputs": ["forecast", "demand"]}))
    assert shapes(config.output) == [("forecast", "TYPE_FP32", [10, 2, 3]), ("demand", "TYPE_FP32", [10, 4, 3])]
    assert config_pbtxt({**FACTS, "outputs": ["forecast"]}) == config_pbtxt(FACTS)


def test_a_model_without_a_clock_has_one_input() -> None:
    config = parsed(config_pbtxt({**FACTS, "inputs": ["context"]}))
    assert shapes(config.input) == [("context", "TYPE_FP32", [50, 2])]
    assert [list(sample.inputs) for sample in config.model_warmup] == [["context"]] * 2


def test_what_a_caller_relies_on_is_in_the_parameters() -> None:
    config = parsed(config_pbtxt(FACTS))
    found = {key: json.loads(value.string_value) for key, value in config.parameters.items()}
    keys = ("kind", "channels", "units", "levels", "bin_s", "step_s", "clock")
    assert found == {f"fcast.{key}": FACTS[key] for key in keys}


def test_requests_are_batched_without_waiting_for_others() -> None:
    config = parsed(config_pbtxt(FACTS))
    assert config.HasField("dynamic_batching")
    assert config.dynamic_batching.max_queue_delay_microseconds == 0
    assert list(config.dynamic_batching.preferred_batch_size) == []


@pytest.mark.parametrize("run", ["requests_run", "load_run", "coarse_run"], indirect=True)
def test_names_types_dims_and_warm_up_agree_with_the_graph(run: Path, tmp_path: Path) -> None:
    published = export_checkpoint(run, out=tmp_path)
    config = parsed((published.path.parent / CONFIG).read_text())
    session = onnxruntime.InferenceSession(published.path / "model.onnx", providers=["CPUExecutionProvider"])
    for declared, real in ((config.input, session.get_inputs()), (config.output, session.get_outputs())):
        inner = [list(t.reshape.shape) if t.HasField("reshape") else list(t.dims) for t in declared]
        assert [(t.name, DataType.Name(t.data_type), *dims) for t, dims in zip(declared, inner, strict=True)] == [
            (node.name, TYPES[node.type], *node.shape[1:]) for node in real
        ]
        assert all(isinstance(node.shape[0], str) for node in real)  # the batch, which Triton adds itself

    assert [sample.batch_size for sample in config.model_warmup] == [1, MAX_BATCH]
    assert len({sample.name for sample in config.model_warmup}) == 2
    for sample in config.model_warmup:
        asked = [
            (name, DataType.Name(value.data_type), list(value.dims)) for name, value in sorted(sample.inputs.items())
        ]
        assert asked == shapes(config.input)
        assert all(value.zero_data for value in sample.inputs.values())
        zeros = {
            t.name: np.zeros((sample.batch_size, *t.dims), NUMPY[DataType.Name(t.data_type)]) for t in config.input
        }
        if "time_s" in zeros:
            zeros["time_s"] = zeros["time_s"].reshape(sample.batch_size)  # what `reshape { shape: [ ] }` asks for
        outputs = session.run(None, zeros)
        assert [list(output.shape) for output in outputs] == [[sample.batch_size, *t.dims] for t in config.output]
        assert all(np.isfinite(output).all() for output in outputs)


@pytest.mark.parametrize(
    "change",
    [
        {"levels": [0.1, 0.5, 0.9]},
        {"bin_s": 30.0},
        {"clock": "relative"},
        {"context": 49},
        {"horizon": 9},
        {"inputs": ["context"]},
        {"outputs": ["forecast", "demand"]},
    ],
    ids=lambda change: next(iter(change)),
)
def test_another_contract_is_told(change: dict[str, Any]) -> None:
    assert contract(config_pbtxt({**FACTS, **change})) != contract(config_pbtxt(FACTS))


def test_a_retraining_keeps_the_text() -> None:
    assert config_pbtxt({**FACTS, "created": "tomorrow", "opset": 17, "prior": []}) == config_pbtxt(FACTS)


@pytest.mark.parametrize("folder", EARLIER, ids=lambda folder: f"{folder.parent.name}-{folder.name}")
def test_the_form_of_earlier_commits_is_the_same_contract(folder: Path) -> None:
    before = (folder / CONFIG).read_text()
    now = config_pbtxt(json.loads((folder / "1/manifest.json").read_bytes()))
    assert before in (now, as_before(now))
    assert contract(before) == contract(now)
    assert len(contract(now)) >= 11  # input, output and the tensors in them, seven parameters


def test_how_triton_serves_a_model_is_no_part_of_the_contract() -> None:
    tuned = config_pbtxt(FACTS).replace("max_batch_size: 256", "max_batch_size: 64")
    tuned += "instance_group [\n  { count: 2 kind: KIND_GPU }\n]\n"
    assert contract(tuned) == contract(config_pbtxt(FACTS))
    assert parsed(tuned).instance_group[0].count == 2


def test_an_old_name_takes_new_versions_and_keeps_its_configuration(requests_run: Path, tmp_path: Path) -> None:
    first = export_checkpoint(requests_run, out=tmp_path).path
    config = first.parent / CONFIG
    old = as_before(config.read_text())
    assert old != config.read_text()
    raw = json.loads((first / "manifest.json").read_bytes())  # as an earlier fcast would have published it
    facts = {key: raw[key] for key in raw if key not in ("config_sha256", "version", "files", "self_sha256")}
    write_file(config, old.encode())
    sealed = manifest_bytes(facts, version=1, folder=first, files=sorted(raw["files"]), config=old.encode())
    write_file(first / "manifest.json", sealed)

    second = export_checkpoint(requests_run, out=tmp_path).path
    assert (second.name, config.read_text()) == ("2", old)
    for version in (first, second):
        assert verify(version, device="cpu").problems == []
