"""Decisions about devices; a GPU that is not there is played by fakes."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
import pytest
import torch

from tests.training.traces import load_series
from training import device, windows
from training.errors import ConfigError, DeviceError
from training.windows import WindowSource
from training.world import World, this_world

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


@pytest.fixture
def torchrun(monkeypatch) -> Callable[..., None]:
    def start(**changes: object) -> None:
        environment = {"TORCHELASTIC_RUN_ID": "x", "RANK": 3, "WORLD_SIZE": 4, "LOCAL_RANK": 1, "LOCAL_WORLD_SIZE": 2}
        for name, value in {**environment, **changes}.items():
            if value is None:
                monkeypatch.delenv(name, raising=False)
            else:
                monkeypatch.setenv(name, str(value))

    return start


def gpus(monkeypatch, count: int) -> None:
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


@pytest.mark.parametrize(
    ("precision", "bf16", "expected"),
    [
        ("fp32", True, None),
        ("amp", True, torch.bfloat16),
        ("amp", False, torch.float16),
        ("bf16", True, torch.bfloat16),
        ("fp16", True, torch.float16),
        ("fp16", False, torch.float16),
    ],
)
def test_a_gpu_trains_in_the_16_bits_it_has(monkeypatch, precision, bf16, expected):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bf16)
    assert device.half_dtype(precision, CUDA) is expected


def test_an_old_gpu_refuses_bf16_and_a_cpu_fp16(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    with pytest.raises(DeviceError, match=r"bf16: expected a CPU or a GPU of compute capability 8.0 or newer"):
        device.half_dtype("bf16", CUDA)
    with pytest.raises(DeviceError, match="precision fp16: expected a CUDA GPU, got cpu; use --set precision=bf16"):
        device.half_dtype("fp16", CPU)
    assert device.half_dtype("bf16", CPU) is torch.bfloat16


def test_each_process_of_torchrun_has_its_own_gpu(monkeypatch, torchrun):
    gpus(monkeypatch, 2)
    torchrun()
    assert this_world() == World(rank=3, size=4, local_rank=1, local_size=2)
    assert device.resolve_device("auto") == device.resolve_device("cuda") == torch.device("cuda", 1)
    assert device.resolve_device("cpu") == CPU
    with pytest.raises(ConfigError, match=r"expected auto, cpu or cuda for the 4 processes of torchrun, got 'cuda:0'"):
        device.resolve_device("cuda:0")
    gpus(monkeypatch, 1)
    with pytest.raises(DeviceError, match=r"expected a CUDA GPU, got 1 GPU\(s\); give torchrun a smaller"):
        device.resolve_device("cuda")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"LOCAL_RANK": None}, "environment: expected RANK, .* of torchrun, got 'LOCAL_RANK'"),
        ({"WORLD_SIZE": 3}, "torchrun: expected as many processes on every node, got 2 of 3 on this one"),
    ],
)
def test_a_world_that_is_not_described_well_is_refused(torchrun, changes, message):
    torchrun(**changes)
    with pytest.raises(ConfigError, match=message):
        this_world()


def test_a_series_goes_to_the_gpu_unless_it_would_take_more_than_half_of_what_is_free(monkeypatch, caplog):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (8_000_000_000, 80_000_000_000))
    assert device.series_home(4_000_000_000, CUDA) == CUDA
    with caplog.at_level(logging.WARNING):
        assert device.series_home(4_000_000_001, CUDA) == CPU
    assert caplog.messages == [
        "series: expected at most half of the 8.0 GB that are free on cuda:0, got 4.0 GB; it stays in the host's "
        "memory and every batch is copied through pinned memory"
    ]
    assert device.series_home(10**15, CPU) == CPU


def test_windows_of_a_series_that_stays_in_the_hosts_memory_are_the_same(monkeypatch):
    series, origins = load_series(200), torch.tensor([12, 50, 99])
    near = WindowSource(series, context=12, horizon=3, device=CPU).gather(origins)
    moved: list[torch.device] = []

    def copied(tensor, to):
        moved.append(to)
        return tensor.clone()

    monkeypatch.setattr(windows, "series_home", lambda size_bytes, device: CPU)
    monkeypatch.setattr(windows, "to_device", copied)
    source = WindowSource(series, context=12, horizon=3, device=CPU)
    source.device = CUDA
    far = source.gather(origins)
    assert moved == [CUDA] * 3
    assert all(np.array_equal(a, b) for a, b in zip(near, far, strict=True))


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (MemoryError(), True),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to"),
            True,
        ),
        (RuntimeError("MPS backend out of memory"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_a_lack_of_memory_is_told_from_other_errors(error, expected):
    assert device.is_out_of_memory(error) is expected


def test_the_limit_of_a_container_counts(monkeypatch, tmp_path):
    monkeypatch.setattr(device, "_CGROUP", tmp_path)
    free = device.usable_bytes(CPU)
    (tmp_path / "memory.max").write_text("3000000000\n")
    (tmp_path / "memory.current").write_text("2900000000\n")
    assert device.usable_bytes(CPU) < min(free, 100_000_001 + device.used_bytes(CPU) * 1.2)
    (tmp_path / "memory.max").write_text("max\n")
    assert device.usable_bytes(CPU) > 200_000_000
