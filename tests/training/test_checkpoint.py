"""Checkpoints: what is damaged, altered or of another version is refused in one clear line."""

from __future__ import annotations

import json

import pytest
import torch

from tests.training.test_fit import run_of, train
from training.checkpoint import load_checkpoint, write_atomically
from training.errors import CheckpointError


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    train(folder, run_of(epochs=1))
    return folder


@pytest.fixture
def copy(trained, tmp_path):
    for path in trained.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def edit(folder, change):
    meta = json.loads((folder / "checkpoint.json").read_text())
    change(meta)
    (folder / "checkpoint.json").write_text(json.dumps(meta))


def test_a_loaded_checkpoint_forecasts_what_the_trained_model_did(trained):
    first, second = load_checkpoint(trained), load_checkpoint(trained)
    context = torch.from_numpy(first.windows["context"][:4])
    assert torch.equal(first.model(context), second.model(context))
    assert not first.model.training


@pytest.mark.parametrize("name", ["model.safetensors", "windows.safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_file_is_refused(copy, name, share):
    data = (copy / name).read_bytes()
    (copy / name).write_bytes(data[: int(len(data) * share)])
    with pytest.raises(CheckpointError, match=f"{name}: expected safetensors, got a damaged file"):
        load_checkpoint(copy)


@pytest.mark.parametrize("name", ["model.safetensors", "windows.safetensors"])
def test_a_changed_number_is_refused(copy, name):
    data = bytearray((copy / name).read_bytes())
    data[-3] ^= 0x10
    (copy / name).write_bytes(bytes(data))
    with pytest.raises(CheckpointError, match=f"{name}: expected sha256 .*altered"):
        load_checkpoint(copy)


def test_a_checkpoint_of_another_version_is_refused(copy):
    edit(copy, lambda meta: meta.update(schema=99))
    with pytest.raises(CheckpointError, match="expected checkpoint schema 2, got 99"):
        load_checkpoint(copy)


def test_facts_that_do_not_fit_the_weights_are_refused(copy):
    edit(copy, lambda meta: meta.update(horizon=meta["horizon"] + 1))
    with pytest.raises(CheckpointError, match="expected the weights of this model"):
        load_checkpoint(copy)


def test_missing_facts_are_named(copy):
    edit(copy, lambda meta: meta.pop("channels"))
    with pytest.raises(CheckpointError, match="expected the facts of a checkpoint, got none for 'channels'"):
        load_checkpoint(copy)


def test_facts_that_are_not_json_are_refused(copy):
    (copy / "checkpoint.json").write_text('{"schema": 2,')
    with pytest.raises(CheckpointError, match="expected a checkpoint's JSON, got a damaged file"):
        load_checkpoint(copy)


def test_an_interrupted_run_says_how_to_finish_it(copy):
    (copy / "checkpoint.json").unlink()
    with pytest.raises(CheckpointError, match="got an interrupted one; finish it with fcast-train ... --resume"):
        load_checkpoint(copy)


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="expected a run folder of fcast-train, got No such file"):
        load_checkpoint(tmp_path / "nothing")


def test_a_folder_of_runs_names_the_runs_inside(trained):
    with pytest.raises(CheckpointError, match=f"got a folder of runs; give one of {trained}"):
        load_checkpoint(trained.parent)


def test_nothing_half_written_is_left_when_writing_fails(tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    write_atomically(path, b"old")

    def full(fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]
