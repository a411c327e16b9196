"""Where an artifact is found, and which ones are refused."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from runtime import ArtifactError, InputError, Predictor
from runtime.artifact import open_artifact
from runtime.manifest import MAX_BYTES

Copied = Callable[[str], Path]
Edited = Callable[..., Path]


def test_a_name_gives_the_newest_version_and_a_version_itself(artifacts: Path) -> None:
    assert open_artifact(artifacts / "requests").manifest.version == 2
    assert open_artifact(str(artifacts / "requests")).manifest.version == 2
    assert open_artifact(artifacts / "requests", version=1).manifest.version == 1
    assert open_artifact(artifacts / "requests" / "1").manifest.version == 1


def test_versions_are_ordered_as_numbers_and_everything_else_is_passed_over(tmp_path: Path, artifacts: Path) -> None:
    for name in ("9", "10"):
        shutil.copytree(artifacts / "requests" / "1", tmp_path / name)
    for name in (".staging-11", "11.tmp", "012", "0", "x", "²", "-3"):
        (tmp_path / name).mkdir()
    (tmp_path / "99").write_text("a file")
    assert open_artifact(tmp_path).folder.name == "10"


@pytest.mark.parametrize("version", [0, -1, True, "1", 1.0])
def test_a_version_that_is_no_version_is_refused(artifacts: Path, version: Any) -> None:
    with pytest.raises(InputError, match="version: expected a whole number from 1"):
        open_artifact(artifacts / "requests", version=version)


def test_a_version_of_a_versions_folder_is_refused(artifacts: Path) -> None:
    with pytest.raises(InputError, match="version: expected None for one version's folder"):
        open_artifact(artifacts / "requests" / "1", version=1)


def test_a_missing_version_names_those_that_are_there(artifacts: Path) -> None:
    with pytest.raises(ArtifactError, match="expected version 3, found 1, 2"):
        open_artifact(artifacts / "requests", version=3)


def test_a_path_without_an_artifact_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"nope: expected an artifact's folder, found nothing"):
        open_artifact(tmp_path / "nope")
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match="found a file"):
        open_artifact(tmp_path / "file")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArtifactError, match=r"expected a version folder \(1, 2, ...\), found none"):
        open_artifact(tmp_path / "empty")
    with pytest.raises(InputError, match="path: expected the path of an artifact, got NoneType"):
        open_artifact(None)  # type: ignore[arg-type]
    with pytest.raises(ArtifactError, match="expected"):
        open_artifact("a\0b")


def test_the_newest_version_is_not_skipped_when_it_is_incomplete(copied: Copied) -> None:
    folder = copied("requests")
    (folder.parent / "2").mkdir()
    with pytest.raises(ArtifactError, match=r"2/manifest.json: expected a file, found none"):
        open_artifact(folder.parent)


def test_the_manifest_is_read_only_all_the_way_down(requests: Predictor) -> None:
    manifest = requests.manifest
    assert manifest["context"] == 16
    assert manifest["channels"] == ("inter_arrival_s", "request_tokens", "response_tokens")
    with pytest.raises(TypeError, match="assignment"):
        manifest["context"] = 3  # type: ignore[index]
    assert isinstance(manifest["files"]["model.onnx"], MappingProxyType)
    typed = open_artifact(Path(__file__).parent / "artifacts" / "requests").manifest
    with pytest.raises(AttributeError, match="context"):
        typed.context = 3  # type: ignore[misc]
    with pytest.raises(ValueError, match="read-only"):
        typed.prior[0, 0] = 1


def test_a_newer_schema_asks_for_an_upgrade(edited: Edited) -> None:
    with pytest.raises(ArtifactError, match="expected schema 1 or older, got 2: written by a newer fcast; upgrade"):
        Predictor(edited("requests", schema=2))


def test_an_edited_manifest_is_refused(copied: Copied) -> None:
    path = copied("requests") / "manifest.json"
    path.write_text(path.read_text().replace('"gap_s": 21600.0', '"gap_s": 21601.0'))
    with pytest.raises(ArtifactError, match=r"manifest.json: expected self_sha256 '\w+', found \w+; .*altered"):
        Predictor(path.parent)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "expected JSON"),
        (b'{"schema": 1', "expected JSON"),
        (b"\xff\xfe", "expected JSON"),
        (b"[1]", "expected a JSON object, got list"),
        (b'{"schema": NaN}', "expected JSON, got the number NaN"),
        (b'{"schema": 1, "schema": 1}', "a key that stands twice"),
        (b"[" * 100_000, "expected JSON"),
        (b'{"schema": ' + b"9" * 5000 + b"}", "expected JSON|expected 'schema'"),
        (b'{"schema": 1, "x": 1e999}', "expected finite numbers"),
        (b" " * (MAX_BYTES + 1), f"expected at most {MAX_BYTES} bytes"),
    ],
    ids=lambda value: value[:12] if isinstance(value, bytes) else "",
)
def test_a_manifest_that_is_no_manifest_is_refused(copied: Copied, data: bytes, said: str) -> None:
    folder = copied("requests")
    (folder / "manifest.json").write_bytes(data)
    with pytest.raises(ArtifactError, match=f"manifest.json: {said}|manifest.json: .*{said}"):
        Predictor(folder)


KEYS = [
    k for k in json.loads((Path(__file__).parent / "artifacts/load/1/manifest.json").read_text()) if k != "self_sha256"
]


@pytest.mark.parametrize("key", [key for key in KEYS if key != "config_sha256"])  # which the first exports do not have
def test_every_key_of_the_schema_is_required(edited: Edited, key: str) -> None:
    with pytest.raises(ArtifactError, match=rf"manifest.json: expected the key '{key}', found none; export again"):
        Predictor(edited("load", **{key: ...}))


@pytest.mark.parametrize("key", KEYS)
def test_every_key_of_the_schema_is_typed(edited: Edited, key: str) -> None:
    with pytest.raises(ArtifactError, match=f"manifest.json: expected '{key}' to be .*, got True"):
        Predictor(edited("load", **{key: True}))


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("requests", {"kind": "tokens"}, "'kind' to be 'requests' or 'load', got 'tokens'"),
        ("requests", {"channels": ["requests"]}, "'channels' to be"),
        ("requests", {"units": ["s", "s", "tokens"]}, "'units' to be"),
        ("requests", {"bin_s": 60.0}, "'bin_s' to be null"),
        ("requests", {"context": 0}, "'context' to be a whole number from 1"),
        ("requests", {"context": 1 << 40}, "'context' to be a whole number"),
        ("requests", {"context": 16.0}, "'context' to be a whole number"),
        ("requests", {"horizon": 1 << 20, "levels": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]}, "'horizon' to be"),
        ("requests", {"levels": []}, "'levels' to be"),
        ("requests", {"levels": [0.5, 0.1]}, "'levels' to be increasing"),
        ("requests", {"levels": [0.5, 1.0]}, "'levels' to be"),
        ("requests", {"levels": ["0.5"]}, "'levels' to be"),
        ("requests", {"inputs": ["time_s"]}, "'inputs' to be"),
        ("requests", {"outputs": ["forecast", "demand"]}, r"'outputs' to be \[\"forecast\"\] for kind 'requests'"),
        ("load", {"outputs": ["demand"]}, r"'outputs' to be .* or \[\"forecast\", \"demand\"\] for kind 'load'"),
        ("load", {"outputs": "forecast"}, "'outputs' to be a list of texts"),
        ("requests", {"prior": [[1.0]]}, "'prior' to be 3 x 7"),
        ("requests", {"prior": [[-1.0] * 7] * 3}, "'prior' to be"),
        ("requests", {"prior": [[7, 6, 5, 4, 3, 2, 1]] * 3}, "'prior' to be rows that do not decrease"),
        ("requests", {"gap_s": 0}, "'gap_s' to be"),
        ("requests", {"clock": "lunar"}, "'clock' to be"),
        ("requests", {"files": {}}, "'files' to be at least one"),
        ("requests", {"files": {"model.onnx": {"sha256": "x", "bytes": 1}}}, "'sha256' and 'bytes' for 'model.onnx'"),
        ("requests", {"files": {"model.onnx": 3}}, "'sha256' and 'bytes' for 'model.onnx'"),
        ("requests", {"checkpoint_sha256": "0"}, "'checkpoint_sha256' to be 64 hexadecimal digits"),
        ("load", {"bin_s": None}, "'bin_s' to be a number"),
        ("load", {"step_s": 90.0}, r"'step_s' to be a whole multiple of bin_s \(60\)"),
        ("load", {"step_s": 30.0}, "'step_s' to be"),
        ("load", {"gap_s": 30.0}, "'gap_s' to be at least bin_s"),
    ],
)
def test_impossible_values_are_refused(edited: Edited, name: str, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ArtifactError, match=f"manifest.json: expected {said}"):
        Predictor(edited(name, **changes))


def test_keys_that_this_reader_does_not_know_are_kept(edited: Edited) -> None:
    assert Predictor(edited("requests", remark={"by": ["me"]})).manifest["remark"]["by"] == ("me",)


def test_a_truncated_graph_is_refused(copied: Copied) -> None:
    path = copied("requests") / "model.onnx"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ArtifactError, match=r"model.onnx: expected 961 bytes, found 960 bytes; .*cut"):
        Predictor(path.parent)


def test_an_altered_graph_is_refused(copied: Copied) -> None:
    path = copied("requests") / "model.onnx"
    data = bytearray(path.read_bytes())
    data[500] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(ArtifactError, match=r"model.onnx: expected sha256 \w{64}, found \w{64}; .*altered"):
        Predictor(path.parent)
    path.write_bytes(bytes(data) + b"more")
    with pytest.raises(ArtifactError, match="model.onnx: expected 961 bytes, found more"):
        Predictor(path.parent)


def test_other_files_are_left_to_verify_so_that_starting_is_quick(copied: Copied) -> None:
    folder = copied("requests")
    (folder / "golden.npz").write_bytes(b"")
    (folder / "parity.json").unlink()
    assert Predictor(folder).device == "cpu"


def test_an_artifact_without_an_onnx_graph_says_what_it_has(edited: Edited) -> None:
    files = {"model.pt": {"sha256": "0" * 64, "bytes": 1}}
    with pytest.raises(ArtifactError, match=r"manifest.json: expected 'model.onnx' in 'files', found only model.pt"):
        Predictor(edited("requests", files=files))


@pytest.mark.parametrize("name", ["../model.onnx", "/etc/passwd", "a/b", "..", ".hidden", "", "manifest.json", "a\0b"])
def test_file_names_that_lead_elsewhere_are_refused(edited: Edited, name: str) -> None:
    files = {name: {"sha256": "0" * 64, "bytes": 1}}
    with pytest.raises(ArtifactError, match="expected plain file names in 'files'"):
        Predictor(edited("requests", files=files))


@pytest.mark.parametrize("name", ["model.onnx", "manifest.json"])
def test_links_out_of_the_folder_are_refused(copied: Copied, tmp_path: Path, name: str) -> None:
    folder = copied("requests")
    os.rename(folder / name, tmp_path / "outside")
    (folder / name).symlink_to(tmp_path / "outside")
    with pytest.raises(ArtifactError, match=f"{name}: expected a file inside the artifact, found a link to"):
        Predictor(folder)


def test_a_linked_folder_and_a_link_inside_it_are_fine(copied: Copied, tmp_path: Path) -> None:
    folder = copied("requests")
    os.rename(folder / "model.onnx", folder / "blob")
    (folder / "model.onnx").symlink_to("blob")
    (tmp_path / "current").symlink_to(folder.parent)
    assert Predictor(tmp_path / "current").manifest["version"] == 1


def test_a_named_pipe_is_refused_and_not_waited_for(copied: Copied) -> None:
    folder = copied("requests")
    (folder / "model.onnx").unlink()
    os.mkfifo(folder / "model.onnx")
    with pytest.raises(ArtifactError, match="model.onnx: expected a plain file"):
        Predictor(folder)


def test_a_folder_in_place_of_a_file_is_refused(copied: Copied) -> None:
    folder = copied("requests")
    (folder / "model.onnx").unlink()
    (folder / "model.onnx").mkdir()
    with pytest.raises(ArtifactError, match="model.onnx: expected a file that can be read, got Is a directory"):
        Predictor(folder)


def test_a_link_to_itself_is_refused(copied: Copied) -> None:
    folder = copied("requests")
    (folder / "model.onnx").unlink()
    (folder / "model.onnx").symlink_to("model.onnx")
    with pytest.raises(ArtifactError, match="model.onnx: expected a file that can be read"):
        Predictor(folder)


def test_a_file_declared_larger_than_any_artifact_is_not_read(edited: Edited) -> None:
    sha256 = "0" * 64
    with pytest.raises(ArtifactError, match="'files' to be at most 64 files of 2147483648 bytes together"):
        Predictor(edited("requests", files={"model.onnx": {"sha256": sha256, "bytes": 1 << 40}}))
    with pytest.raises(ArtifactError, match="model.onnx: expected at most 2147483647 bytes, got 2147483648"):
        Predictor(edited("counts", files={"model.onnx": {"sha256": sha256, "bytes": 1 << 31}}))


def test_an_artifact_from_before_there_was_another_output_gives_the_forecast_alone(load: Predictor) -> None:
    assert "outputs" not in load.manifest
    assert load.predict_outputs(np.ones((12, 3), np.float32), 0.0).keys() == {"forecast"}


def test_a_graph_without_the_output_that_the_manifest_lists_is_refused(edited: Edited) -> None:
    with pytest.raises(ArtifactError, match="expected the outputs forecast, demand, got forecast; export again"):
        Predictor(edited("load", outputs=["forecast", "demand"]), device="cpu")
    with pytest.raises(ArtifactError, match="expected the outputs forecast, got forecast, demand; export again"):
        Predictor(edited("demand", outputs=...), device="cpu")


def test_every_output_is_given_for_a_batch_and_for_one_window(demand: Predictor) -> None:
    windows = np.random.default_rng(0).gamma(2.0, 50.0, (5, 10, 3)).astype(np.float32)
    batch = demand.predict_outputs(windows)
    assert {name: output.shape for name, output in batch.items()} == {"forecast": (5, 4, 3, 7), "demand": (5, 4, 6, 7)}
    np.testing.assert_array_equal(demand.predict(windows), batch["forecast"])
    one = demand.predict_outputs(windows[2])
    np.testing.assert_allclose(one["demand"], batch["demand"][2], rtol=1e-5)
    np.testing.assert_array_equal(one["forecast"], demand.predict(windows[2]))
