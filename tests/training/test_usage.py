"""Memory and load for the lines of progress; a stand-in for the GPU that is not here."""

from __future__ import annotations

import psutil
import pytest
import torch

from training.usage import memory_bytes, usage_text

GPU = torch.device("cuda", 1)


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (62_000_000_000, 80_000_000_000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 5_000_000_000)
    monkeypatch.setattr(torch.cuda, "utilization", lambda index: 90 + index)


def test_on_the_cpu_it_is_the_memory_of_the_process():
    found = memory_bytes(torch.device("cpu"))
    assert found == pytest.approx(psutil.Process().memory_info().rss, rel=0.2)
    assert usage_text(torch.device("cpu")) == f"{found / 1e9:.1f} GB"


def test_on_a_gpu_it_is_memory_and_load_of_that_gpu(gpu):
    assert memory_bytes(GPU) == 5_000_000_000
    assert usage_text(GPU) == "18/80 GB 91%"


@pytest.mark.parametrize("error", [ModuleNotFoundError("pynvml"), RuntimeError("no NVML"), Exception("NVMLError")])
def test_a_load_that_can_not_be_asked_is_left_out(gpu, monkeypatch, error):
    def fails(index):
        raise error

    monkeypatch.setattr(torch.cuda, "utilization", fails)
    assert usage_text(GPU) == "18/80 GB"
