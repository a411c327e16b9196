"""config.pbtxt: the artifact folder as a model of a Triton repository, without conversion.

It also holds the contract of a name: what a caller relies on (shapes, channels, units, levels, step) and nothing that
a retraining changes. How Triton is to serve it (batching, warm-up) stands in it too, but is no part of the contract.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from runtime.manifest import output_channels

MAX_BATCH = 256
_PARAMETERS = ("kind", "channels", "units", "levels", "bin_s", "step_s", "clock")
_RELIED_ON = re.compile(r'(input|output) \[|\{ name: "\w+" data_type: |parameters \{ key: "fcast\.')


def config_pbtxt(manifest: Mapping[str, Any]) -> str:
    """The Triton model configuration of an artifact.

    Args:
        manifest: the artifact's manifest; its contract is read.

    Returns:
        The text of a ModelConfig protobuf. It has no `name`, so Triton takes the folder's and the folder may
        be renamed. A `time_s` of shape (B,) is sent as (B, 1): Triton wants at least one dimension besides
        the batch, and `reshape` takes it away again.
    """
    channels, levels = len(manifest["channels"]), len(manifest["levels"])
    inputs = [_tensor("context", "TYPE_FP32", [manifest["context"], channels])]
    zeros = [_zeros("context", "TYPE_FP32", [manifest["context"], channels])]
    if "time_s" in manifest["inputs"]:
        inputs.append(_tensor("time_s", "TYPE_FP64", [1], reshape=" reshape { shape: [ ] }"))
        zeros.append(_zeros("time_s", "TYPE_FP64", [1]))
    # A manifest without the key is from before there was another output.
    wide = {name: len(output_channels(name, manifest["channels"])) for name in manifest.get("outputs", ["forecast"])}
    outputs = [_tensor(name, "TYPE_FP32", [manifest["horizon"], width, levels]) for name, width in wide.items()]
    lines = [
        'platform: "onnxruntime_onnx"',
        'backend: "onnxruntime"',
        'default_model_filename: "model.onnx"',
        f"max_batch_size: {MAX_BATCH}",
        "input [\n" + ",\n".join(inputs) + "\n]",
        "output [\n" + ",\n".join(outputs) + "\n]",
        # A scheduler asks for one forecast and waits for it: holding it back for company would cost more than the graph
        # does. What queues up while the model is busy is batched all the same, in any size: the graph prefers none.
        "dynamic_batching { max_queue_delay_microseconds: 0 }",
        # ONNX Runtime plans its memory when it meets a shape for the first time: let that not be a caller's request.
        "model_warmup [\n" + ",\n".join(_warmup(size, zeros) for size in (1, MAX_BATCH)) + "\n]",
        "version_policy { latest { num_versions: 1 } }",
        *(_parameter(key, manifest[key]) for key in _PARAMETERS),
    ]
    return "\n".join(lines) + "\n"


def contract(config: str) -> list[str]:
    """What all versions of a name share: the lines of a config.pbtxt, of any fcast, that a caller relies on.

    Its tensors and `fcast.*` parameters have been written in the same form from the start. All else may differ: how
    Triton serves the model is no reason to refuse a new version of an old name.
    """
    lines = [line.strip().rstrip(",") for line in config.splitlines()]
    return [line for line in lines if _RELIED_ON.match(line)]


def _tensor(name: str, data_type: str, dims: list[int], *, reshape: str = "") -> str:
    shape = ", ".join(str(size) for size in dims)
    return f'  {{ name: "{name}" data_type: {data_type} dims: [ {shape} ]{reshape} }}'


def _warmup(batch: int, inputs: list[str]) -> str:
    return f'  {{ name: "batch of {batch}" batch_size: {batch} {" ".join(inputs)} }}'


def _zeros(name: str, data_type: str, dims: list[int]) -> str:
    shape = ", ".join(str(size) for size in dims)
    return f'inputs {{ key: "{name}" value {{ data_type: {data_type} dims: [ {shape} ] zero_data: true }} }}'


def _parameter(key: str, value: Any) -> str:
    # JSON twice: the value as text, then that text quoted; protobuf's text format escapes as JSON does.
    return f'parameters {{ key: "fcast.{key}" value {{ string_value: {json.dumps(json.dumps(value))} }} }}'
