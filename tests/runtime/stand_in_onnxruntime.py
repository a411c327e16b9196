"""A GPU that is not there: what onnxruntime and the driver would say with one."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


class FakeValue:
    """A buffer on a device; one that is made from numpy is numpy's own."""

    def __init__(self, array: np.ndarray, place: tuple[str, int] = ("cpu", 0)) -> None:
        self.array, self.place = array, place

    @classmethod
    def ortvalue_from_numpy(cls, array: np.ndarray) -> FakeValue:
        return cls(array)

    @classmethod
    def ortvalue_from_shape_and_type(cls, shape: list[int], kind: type, device: str, index: int) -> FakeValue:
        return cls(np.zeros(shape, kind), (device, index))

    def update_inplace(self, array: np.ndarray) -> None:
        self.array[...] = array

    def numpy(self) -> np.ndarray:
        return self.array.copy()


class FakeBinding:
    def __init__(self) -> None:
        self.inputs: dict[str, FakeValue] = {}
        self.outputs: dict[str, FakeValue] = {}
        self.bind_ortvalue_input = self.inputs.__setitem__
        self.bind_ortvalue_output = self.outputs.__setitem__


class FakeRunOptions:
    def __init__(self) -> None:
        self.entries: dict[str, str] = {}
        self.add_run_config_entry = self.entries.__setitem__


class FakeSession:
    """A session of the `requests` artifact that claims the providers it is told to; it forecasts the context's sum."""

    def __init__(self, providers: list[str], device_id: str, *, run: str = "", takes_s: float = 0.0) -> None:
        self.providers, self.device_id, self.may_fall_back = providers, device_id, True
        self.takes_s, self.how, self.graphs = takes_s, run, dict[str, float]()
        self.seen: list[str | None] = []

    def get_providers(self) -> list[str]:
        return self.providers

    def get_provider_options(self) -> dict[str, dict[str, str]]:
        return {CUDA: {"device_id": self.device_id}}

    def get_inputs(self) -> list[Any]:
        return [SimpleNamespace(name="context", type="tensor(float)", shape=["batch", 16, 3])]

    def get_outputs(self) -> list[Any]:
        return [SimpleNamespace(name="forecast", type="tensor(float)", shape=["batch", 4, 3, 7])]

    def disable_fallback(self) -> None:
        self.may_fall_back = False

    def io_binding(self) -> FakeBinding:
        return FakeBinding()

    def run_with_iobinding(self, bound: FakeBinding, options: FakeRunOptions | None = None) -> None:
        time.sleep(self.takes_s)
        if self.how == "kernel":
            raise RuntimeError("CUDA failure 209: no kernel image is available for execution on the device")
        graph = None if options is None else options.entries["gpu_graph_id"]
        self.seen.append(graph)
        if self.how == "wears out" and len(self.seen) > 3:
            raise RuntimeError("CUDA failure 700: an illegal memory access")
        found = float(bound.inputs["context"].array.sum())
        if graph is not None and self.how == "stale graph":  # one that replays what it was recorded with
            found = self.graphs.setdefault(graph, found)
        bound.outputs["forecast"].array[...] = found

    def run(self, names: list[str], feed: dict[str, Any], options: FakeRunOptions | None = None) -> list[Any]:
        self.seen.append(None if options is None else options.entries["gpu_graph_id"])
        sums = feed["context"].sum(axis=(1, 2))
        return [np.broadcast_to(sums[:, None, None, None], (len(sums), 4, 3, 7)).astype(np.float32)]


class FakeOnnxruntime:
    """onnxruntime with CUDA compiled in; `cuda` says what happens when a session asks for it."""

    __version__, __file__ = "9.9", "/nowhere/onnxruntime/__init__.py"
    OrtValue, RunOptions = FakeValue, FakeRunOptions

    def __init__(self, cuda: str) -> None:
        self.cuda = cuda
        self.asked: list[tuple[list[Any], dict[str, Any], SimpleNamespace]] = []
        self.sessions: list[FakeSession] = []
        self.preloaded = 0

    def SessionOptions(self) -> SimpleNamespace:  # noqa: N802
        entries: dict[str, str] = {}
        return SimpleNamespace(entries=entries, add_session_config_entry=entries.__setitem__)

    def get_available_providers(self) -> list[str]:
        return [CUDA, CPU] if self.cuda != "not built" else [CPU]

    def preload_dlls(self) -> None:
        print("Failed to load libcudnn.so.9")
        self.preloaded += 1

    def InferenceSession(self, model: bytes, options: Any, *, providers: list[Any], **more: Any) -> FakeSession:  # noqa: N802
        self.asked.append((providers, more, options))
        names = [p if isinstance(p, str) else p[0] for p in providers]
        device_id = "0"
        if CUDA in names:
            if self.cuda == "raises":
                raise RuntimeError("CUDA failure 35: driver version is insufficient\nsecond line")
            if self.cuda == "no graphs" and "enable_cuda_graph" in providers[0][1]:
                raise RuntimeError("This session cannot use the graph capture feature as requested by the user")
            if self.cuda == "falls back":
                names = [CPU]
            else:
                device_id = providers[0][1]["device_id"]
        on_cuda = names[0] == CUDA
        takes_s = {"slow": 2e-3 * on_cuda}.get(self.cuda, 2e-3 * (not on_cuda))
        self.sessions.append(FakeSession(names, device_id, run=self.cuda if on_cuda else "", takes_s=takes_s))
        return self.sessions[-1]


class Driver:
    """The dynamic loader of a machine with or without an NVIDIA driver."""

    def __init__(self, *, missing: str = "", gpu_code: int = 0, version: int = 13000) -> None:
        self.missing, self.gpu_code, self.version = missing, gpu_code, version

    def __call__(self, name: str, *_: Any) -> Driver:
        if self.missing in Path(name).name and self.missing:
            raise OSError(f"{self.missing}: cannot open shared object file: No such file or directory")
        if name.endswith("cuda.so") and self.missing == "":
            raise OSError(f"{name}: undefined symbol: Provider_GetHost")
        return self

    def cuInit(self, _: int) -> int:  # noqa: N802
        return self.gpu_code

    def cuDriverGetVersion(self, found: Any) -> int:  # noqa: N802
        found._obj.value = self.version
        return 0
