"""config.pbtxt: structure as Triton's ModelConfig wants it."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from export.triton import config_pbtxt

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


def parsed(text: str) -> dict[str, list[Any]]:
    """Protobuf text format, as far as it is used: field -> all its values, in order."""
    tokens = re.findall(r'"(?:[^"\\]|\\.)*"|[A-Za-z_][\w.]*|-?\d+|[{}\[\]:,]', text)
    fields, rest = _message(tokens, 0)
    assert rest == len(tokens)
    return fields


def _message(tokens: list[str], at: int) -> tuple[dict[str, list[Any]], int]:
    fields: dict[str, list[Any]] = {}
    while at < len(tokens) and tokens[at] != "}":
        assert re.fullmatch(r"[a-z_]+", tokens[at])
        name, at = tokens[at], at + 1
        if tokens[at] == ":":
            at += 1
        else:
            assert tokens[at] in "{["
        values, at = _value(tokens, at)
        fields.setdefault(name, []).extend(values)
    return fields, at


def _value(tokens: list[str], at: int) -> tuple[list[Any], int]:
    if tokens[at] == "{":
        message, at = _message(tokens, at + 1)
        assert tokens[at] == "}"
        return [message], at + 1
    if tokens[at] == "[":
        found: list[Any] = []
        at += 1
        while tokens[at] != "]":
            values, at = _value(tokens, at)
            found += values
            at += tokens[at] == ","
        return found, at + 1
    return [json.loads(tokens[at]) if tokens[at][0] in '"-0123456789' else tokens[at]], at + 1


def test_the_configuration_describes_the_graph_without_its_batch() -> None:
    config = parsed(config_pbtxt(FACTS))
    assert config["platform"] == ["onnxruntime_onnx"]
    assert config["backend"] == ["onnxruntime"]
    assert config["max_batch_size"] == [256]
    assert config["input"] == [
        {"name": ["context"], "data_type": ["TYPE_FP32"], "dims": [50, 2]},
        {"name": ["time_s"], "data_type": ["TYPE_FP64"], "dims": [1], "reshape": [{"shape": []}]},
    ]
    assert config["output"] == [{"name": ["forecast"], "data_type": ["TYPE_FP32"], "dims": [10, 2, 3]}]
    assert config["dynamic_batching"] == [{}]
    assert config["version_policy"] == [{"latest": [{"num_versions": [1]}]}]


def test_a_second_output_is_listed_and_leaves_the_text_of_one_as_it_was() -> None:
    config = parsed(config_pbtxt({**FACTS, "outputs": ["forecast", "demand"]}))
    assert config["output"] == [
        {"name": ["forecast"], "data_type": ["TYPE_FP32"], "dims": [10, 2, 3]},
        {"name": ["demand"], "data_type": ["TYPE_FP32"], "dims": [10, 4, 3]},
    ]
    # The text is the contract that versions of one name share: old names must go on taking new versions.
    assert config_pbtxt({**FACTS, "outputs": ["forecast"]}) == config_pbtxt(FACTS)


def test_a_model_without_a_clock_has_one_input() -> None:
    config = parsed(config_pbtxt({**FACTS, "inputs": ["context"]}))
    assert [tensor["name"] for tensor in config["input"]] == [["context"]]


def test_what_a_caller_relies_on_is_in_the_parameters() -> None:
    config = parsed(config_pbtxt(FACTS))
    found = {p["key"][0]: json.loads(p["value"][0]["string_value"][0]) for p in config["parameters"]}
    keys = ("kind", "channels", "units", "levels", "bin_s", "step_s", "clock")
    assert found == {f"fcast.{key}": FACTS[key] for key in keys}


@pytest.mark.parametrize(
    "change", [{"levels": [0.1, 0.5, 0.9]}, {"bin_s": 30.0}, {"clock": "relative"}, {"horizon": 9}]
)
def test_another_contract_is_another_text(change: dict[str, Any]) -> None:
    assert config_pbtxt({**FACTS, **change}) != config_pbtxt(FACTS)


def test_a_retraining_keeps_the_text() -> None:
    assert config_pbtxt({**FACTS, "created": "tomorrow", "opset": 17, "prior": []}) == config_pbtxt(FACTS)


def test_tritonclient_parses_it() -> None:
    protobuf = pytest.importorskip("google.protobuf.text_format")
    model_config = pytest.importorskip("tritonclient.grpc.model_config_pb2")
    config = protobuf.Parse(config_pbtxt(FACTS), model_config.ModelConfig())
    assert (config.max_batch_size, list(config.input[1].dims)) == (256, [1])
    assert config.input[1].HasField("reshape")
