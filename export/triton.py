"""config.pbtxt: the artifact folder as a model of a Triton repository, without conversion.

Its text is also the identity of the contract: versions of one name differ in weights only. So it holds what a
caller relies on (shapes, channels, units, levels, step) and nothing that a retraining changes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from runtime.manifest import output_channels

MAX_BATCH = 256
_CONTRACT = ("kind", "channels", "units", "levels", "bin_s", "step_s", "clock")


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
    if "time_s" in manifest["inputs"]:
        inputs.append(_tensor("time_s", "TYPE_FP64", [1], reshape=" reshape { shape: [ ] }"))
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
        "dynamic_batching { }",
        "version_policy { latest { num_versions: 1 } }",
        *(_parameter(key, manifest[key]) for key in _CONTRACT),
    ]
    return "\n".join(lines) + "\n"


def _tensor(name: str, data_type: str, dims: list[int], *, reshape: str = "") -> str:
    shape = ", ".join(str(size) for size in dims)
    return f'  {{ name: "{name}" data_type: {data_type} dims: [ {shape} ]{reshape} }}'


def _parameter(key: str, value: Any) -> str:
    # JSON twice: the value as text, then that text quoted; protobuf's text format escapes as JSON does.
    return f'parameters {{ key: "fcast.{key}" value {{ string_value: {json.dumps(json.dumps(value))} }} }}'
