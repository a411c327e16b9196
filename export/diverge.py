"""Where an exported graph first leaves the trained model: torch module beside ONNX node, with both values.

All tensors inside the graph are compared with the results of all operations of torch on the same windows. A tensor is
right when some result in torch has its numbers in its order; shapes do not count, as exporters reshape at will. They
split and merge operations too, so a right graph has tensors without a counterpart: to blame are those from which an
output is reached without passing a right one.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from export.tracing import named_outputs, tracing
from runtime.device import import_onnxruntime

ort = import_onnxruntime()

_SHARES = (1e-2, 1e-3, 1e-4, 3e-5, 1e-5, 3e-6, 1e-6, 3e-7)
"""Differences looked for, of what a tensor usually holds; the finest are float32's own rounding."""
_ROUNDING = 4e-7
_MOST_GROWTH = 100.0
_WINDOWS = 32
_TINY, _INFINITY = 1e-30, 1e30
_REORDERED = 1e-4
_LEAST_FACTOR = 3.0
"""Rounding grows from node to node too, but slowly."""
_MOVES = ("view", "reshape", "squeeze", "alias", "detach", "clone", "contiguous")
"""Operations of torch that change no number and no order."""
_OPERATIONS = {
    "MatMul": (
        "bmm",
        ".mm",
        "matmul",
        "scaled_dot_product",
    ),  # with a bias, torch has the sum alone: that is the Add after it
    "Gemm": ("addmm", ".mm"),
    "Add": ("add",),
    "Clip": ("clamp",),
    "Concat": ("cat", "stack"),
    "Div": ("div", "reciprocal"),
    "Gather": ("select", "index", "gather"),
    "GRU": ("",),
    "LSTM": ("",),
    "LayerNormalization": ("layer_norm",),
    "Max": ("max", "clamp"),
    "Min": ("min", "clamp"),
    "ReduceMean": ("mean",),
    "ReduceSum": ("sum",),
    "RNN": ("",),
    "Slice": ("slice", "select"),
    "ThresholdedRelu": ("where",),
    "Transpose": ("transpose", "permute", ".t."),
}
"""Parts of names of torch's operations, where that of ONNX in small letters is none."""


@dataclass(frozen=True, slots=True)
class _Result:
    """What one operation of torch gave, within which module."""

    module: str
    kind: str
    operation: str
    values: np.ndarray


def first_divergence(model: nn.Module, graph: bytes, windows: Mapping[str, np.ndarray]) -> str | None:
    """Find the first node of a graph whose output differs for good from the trained model's.

    Args:
        model: the trained model.
        graph: content of model.onnx.
        windows: some windows by input name, in the order of forward's arguments.

    Returns:
        One line; None where nothing can be said. No error of the search leaves it, as it explains another.
    """
    try:
        proto = onnx.load_from_string(graph)
        some = {name: array[:_WINDOWS] for name, array in windows.items()}
        tensors = _run(proto, some)
        results, outputs = _record(model, some)
        found = _Comparison(proto=proto, tensors=tensors, results=results, outputs=outputs)
        jumps = [jump for share in _SHARES if (jump := found.first_jump(share))]
        least = max(_LEAST_FACTOR, *(jump.factor / 2 for jump in jumps))
        return next((jump.text for jump in jumps if jump.factor >= least), None)
    except Exception:  # a graph that cannot run, a model that cannot be watched
        return None


def _run(proto: onnx.ModelProto, windows: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Every floating-point tensor that a node gives, nothing fused; lone numbers, which come from shapes, left out."""
    watched = onnx.ModelProto()
    watched.CopyFrom(proto)
    known = {output.name for output in watched.graph.output}
    names = [name for node in watched.graph.node for name in node.output if name]
    watched.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in known)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    session = ort.InferenceSession(watched.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found = zip(names, session.run(names, dict(windows)), strict=True)
    return {name: _finite(value) for name, value in found if value.dtype.kind == "f" and value.size > 1}


def _record(model: nn.Module, windows: Mapping[str, np.ndarray]) -> tuple[list[_Result], dict[str, np.ndarray]]:
    """Results of all operations, in order, and the outputs by name."""
    results: list[_Result] = []
    inside = [("", type(model).__name__)]

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            given = func(*args, **(kwargs or {}))
            if not any(move in str(func) for move in _MOVES):
                for tensor in given if isinstance(given, (tuple, list)) else (given,):
                    if isinstance(tensor, torch.Tensor) and tensor.is_floating_point() and tensor.numel():
                        # A copy, since a later operation may change it in place.
                        results.append(_Result(*inside[-1], str(func), _finite(tensor.detach().numpy())))
            return given

    handles = []
    for name, module in model.named_modules():
        entry = (name, type(module).__name__)
        handles.append(module.register_forward_pre_hook(lambda *_, entry=entry: inside.append(entry)))
        handles.append(module.register_forward_hook(lambda *_: (inside.pop(), None)[1], always_call=True))
    try:
        with tracing(), Watch():
            found = named_outputs(model(*(torch.from_numpy(array) for array in windows.values())))
    finally:
        for handle in handles:
            handle.remove()
    return results, {name: output.numpy() for name, output in found.items()}


def _finite(values: np.ndarray) -> np.ndarray:
    """A copy with large numbers for infinities, such as the log of 0 has, which are equal to one another."""
    return np.nan_to_num(values, nan=np.nan, posinf=_INFINITY, neginf=-_INFINITY)


@dataclass(frozen=True, slots=True)
class _Jump:
    """A node whose output differs by `factor` times as much as what it was given."""

    factor: float
    text: str


class _Comparison:
    """Every tensor of a graph beside the result in torch that is nearest to it."""

    def __init__(
        self,
        *,
        proto: onnx.ModelProto,
        tensors: Mapping[str, np.ndarray],
        results: Sequence[_Result],
        outputs: Mapping[str, np.ndarray],
    ) -> None:
        self.nodes, self.tensors, self.results, self.outputs = proto.graph.node, tensors, results, outputs
        by_size: dict[int, list[int]] = {}
        for i, result in enumerate(results):
            by_size.setdefault(result.values.size, []).append(i)
        self.shares: dict[str, dict[int, float]] = {
            name: {i: _share(tensor, results[i].values) for i in by_size.get(tensor.size, ())}
            for name, tensor in tensors.items()
        }
        self.error = {name: min(shares.values(), default=np.inf) for name, shares in self.shares.items()}
        self.error |= {name: _share(tensors[name], output) for name, output in outputs.items()}

    def first_jump(self, share: float) -> _Jump | None:
        """The earliest node that is to blame for differences of more than a share; None if the outputs have none."""
        right = {name for name, error in self.error.items() if error <= share}
        wrong = self._leading_to_outputs(right)
        met = {i for name in right for i, found in self.shares[name].items() if found <= share}
        free = [result for i, result in enumerate(self.results) if i not in met]
        given = [_ROUNDING]
        for node, name in wrong:
            tensor = self.tensors[name]
            given += [self._passed_on(node, source, tensor) for source in node.input if source in right]
            result = self._giving(name) if name in self.outputs else _expected(node, tensor, free)
            if name not in self.outputs and (result is None or _reordered(node, tensor, result)):
                continue  # an exporter's own step on its way to what torch does at once
            want = self.outputs[name] if result is None else result.values.reshape(tensor.shape)
            there = f"{result.module or 'model'} ({result.kind}), {result.operation}," if result else "its output"
            at = np.unravel_index(int(np.nan_to_num(np.abs(tensor - want), nan=np.inf).argmax()), tensor.shape)
            first = wrong[0][0]
            before = "" if first is node else f"between node {_title(first)} and here, "
            text = (
                f"first difference: {before}torch {there} gives {float(want[at]):.9g} and node {_title(node)}, "
                f"output '{name}', gives {float(tensor[at]):.9g} at {[int(i) for i in at]}"
            )
            return _Jump(min(_share(tensor, want), 1.0) / max(given), text)
        return None

    def _giving(self, name: str) -> _Result | None:
        """The last operation of torch that gives an output's numbers."""
        output = self.outputs[name]
        same = (r for r in reversed(self.results) if r.values.size == output.size)
        return next((r for r in same if np.array_equal(r.values.ravel(), output.ravel())), None)

    def _passed_on(self, node: onnx.NodeProto, source: str, tensor: np.ndarray) -> float:
        """What the error of an input is in an output: more where large numbers cancel, or are exponents."""
        given = self.tensors[source]
        if node.op_type == "Exp":
            grows = np.abs(given).max()
        elif node.op_type in ("Mul", "Div"):
            grows = 1.0
        elif given.shape == tensor.shape:
            grows = (_usual(given) / _usual(tensor)).max()
        else:
            grows = np.median(np.abs(given)) / max(np.median(np.abs(tensor)), _TINY)
        return max(self.error[source], _ROUNDING) * min(max(1.0, float(grows)), _MOST_GROWTH)

    def _leading_to_outputs(self, right: set[str]) -> list[tuple[onnx.NodeProto, str]]:
        """Nodes and tensors, in the graph's order, that lead to an output through tensors none of which is right."""
        leading, found = set(self.outputs), []
        for node in reversed(self.nodes):
            names = [name for name in node.output if name in leading and name in self.tensors and name not in right]
            if names:
                leading.update(node.input)
                found.append((node, names[0]))
        return found[::-1]


def _expected(node: onnx.NodeProto, tensor: np.ndarray, free: Sequence[_Result]) -> _Result | None:
    """What torch has in a node's place: of its module, operation and size, no right tensor's, and the nearest."""
    scope = _scope(node)
    names = _OPERATIONS.get(node.op_type, (node.op_type.lower(),))
    fits = [
        result
        for result in free
        if result.values.size == tensor.size
        and any(name in result.operation for name in names)
        and (scope is None or f".{result.module}".endswith(f".{scope}"))  # a method of a module leaves out its path
    ]
    return min(fits, key=lambda result: _share(tensor, result.values), default=None)


def _reordered(node: onnx.NodeProto, tensor: np.ndarray, result: _Result) -> bool:
    """Whether a Transpose has the right numbers in another order, as attention has its keys."""
    if node.op_type != "Transpose" or _share(tensor, result.values) < _REORDERED:
        return False
    return _share(np.sort(tensor, axis=None), np.sort(result.values, axis=None)) < _REORDERED


def _scope(node: onnx.NodeProto) -> str | None:
    """The path of the torch module that a node comes from, as either exporter notes it; None if it does not."""
    for entry in node.metadata_props:
        if entry.key == "pkg.torch.onnx.name_scopes":
            scopes = ast.literal_eval(entry.value)
            return str(scopes[-2]) if len(scopes) > 1 else ""
    if not node.name.startswith("/"):
        return None
    path: list[str] = []
    for part in node.name.split("/")[1:-1]:  # "/layers.0/mlp/mlp.3/MatMul": a child's name may begin with its parent's
        if path and part.startswith(f"{path[-1]}."):
            path.pop()
        path.append(part)
    return ".".join(path)


def _title(node: onnx.NodeProto) -> str:
    return f"{node.name or '(no name)'} ({node.op_type})"


def _share(got: np.ndarray, want: np.ndarray) -> float:
    """By how much two tensors of one size differ, as a share of what the second usually holds.

    Rounding has no sign of its own and a wrong constant has: the mean over the first axis counts whole, single values
    by a thirtieth.
    """
    want = want.reshape(got.shape).astype(np.float64)
    difference = got - want
    if not np.isfinite(difference).all():
        return np.inf
    if got.ndim == 0:
        return float(abs(difference) / max(abs(want), _TINY))
    mean = (np.abs(difference.mean(axis=0)) / _usual(want)).max()
    single = np.abs(difference).max() / max(np.abs(want).max(), _TINY)
    return float(max(mean, single / 30))


def _usual(values: np.ndarray) -> np.ndarray:
    """The size of a tensor at each place behind the first axis, and not much less than at those beside it.

    Beside means the lower quarter on the last axis: more than half of the places may hold what stands for infinity.
    """
    size = np.abs(values).mean(axis=0)
    least = np.quantile(size, 0.25, axis=-1, keepdims=True) if size.ndim else size
    return np.maximum(size, np.maximum(0.1 * least, _TINY))
