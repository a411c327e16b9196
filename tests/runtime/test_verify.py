"""fcast-verify finds what was damaged or differs, and reads golden.npz without trusting it."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result

from runtime import ArtifactError
from runtime.artifact import open_artifact
from runtime.cli_verify import main
from runtime.golden import MAX_UNPACKED_BYTES, read_golden
from runtime.verify import verify
from tests.runtime.conftest import cli_runner, replace_file, seal
from tests.runtime.hostile_graphs import filled

Copied = Callable[[str], Path]


def invoke(folder: Path, *options: str) -> Result:
    return cli_runner().invoke(main, [str(folder), "--device", "cpu", *options])


@pytest.mark.parametrize("name", ["requests", "load", "counts", "demand"])
def test_a_good_artifact_passes_at_every_batch(artifacts: Path, name: str) -> None:
    result = verify(artifacts / name, device="cpu")
    assert result.problems == []
    assert {check.name for check in result.files} == {"model.onnx", "parity.json", "golden.npz", "config.pbtxt"}
    assert (result.rtol, result.atol) == (1e-4, 1e-5)
    assert {check.batch for check in result.forecasts} == {6, 1}
    assert all(check.used <= 1 for check in result.forecasts)
    done = invoke(artifacts / name)
    assert done.exit_code == 0
    assert "6 golden windows on cpu (CPUExecutionProvider)" in done.stdout
    assert done.stderr == ""


def test_json_holds_the_same(artifacts: Path) -> None:
    found = json.loads(invoke(artifacts / "load", "--json").stdout)
    assert (found["ok"], found["problems"], found["device"], found["windows"]) == (True, [], "cpu", 6)
    assert found["forecasts"][0].keys() >= {"batch", "channel", "max_abs", "max_rel", "used"}


def test_every_damaged_file_is_named_with_expected_and_found(copied: Copied) -> None:
    folder = copied("requests")
    parity = (folder / "parity.json").read_text()
    (folder / "parity.json").write_text(parity.replace("1", "2"))
    with (folder / "golden.npz").open("ab") as file:
        file.write(b"x")
    done = invoke(folder)
    assert done.exit_code == 1
    assert done.stdout.count("DIFFERS") == 2
    assert "parity.json: expected sha256" in done.stderr
    assert "golden.npz: expected 3644 bytes, found more" in done.stderr
    assert "not run" in done.stdout
    (folder / "parity.json").unlink()
    assert "parity.json: expected a file, found none" in invoke(folder).stderr


def test_an_edited_configuration_is_found_where_there_is_one(copied: Copied, artifacts: Path) -> None:
    folder = copied("requests")
    assert invoke(folder).exit_code == 0  # a version's folder may be moved about alone
    config = (artifacts / "requests/config.pbtxt").read_text()
    (folder.parent / "config.pbtxt").write_text(config)
    assert invoke(folder).exit_code == 0
    (folder.parent / "config.pbtxt").write_text(config.replace("256", "512"))
    done = invoke(folder)
    assert (done.exit_code, done.stdout.count("DIFFERS")) == (1, 1)
    assert f"Error: {folder.parent}/config.pbtxt: expected sha256 " in done.stderr
    assert "not run" in done.stdout


@pytest.mark.parametrize("name", ["weights.bin", ".hidden", "folder"])
def test_what_the_manifest_does_not_list_is_found(copied: Copied, name: str) -> None:
    folder = copied("requests")
    if name == "folder":
        (folder / name).mkdir()
    else:
        (folder / name).write_bytes(b"x")
    done = invoke(folder)
    assert done.exit_code == 1
    assert f"{name}: expected the files of the manifest alone, found this one; remove it" in done.stderr


def test_the_tolerance_is_that_of_the_proof(copied: Copied) -> None:
    folder = copied("load")
    arrays = golden(folder)
    arrays["forecast"][4, 2, 1, 6] *= 1.01
    replace_file(folder, "golden.npz", pack(arrays))
    assert invoke(folder).exit_code == 1
    parity = json.loads((folder / "parity.json").read_text())
    parity["tolerances"]["rtol"] = 0.02  # as fcast-export --rtol 0.02 has it
    replace_file(folder, "parity.json", json.dumps(parity).encode())
    assert invoke(folder).exit_code == 0
    assert json.loads(invoke(folder, "--json").stdout)["rtol"] == 0.02
    assert invoke(folder, "--rtol", "1e-4").exit_code == 1
    parity["tolerances"] = {
        "rtol": 0.0,
        "atol": 1.0,
        "channel_scale": {"requests": 1.0, "request_tokens": 1e6, "response_tokens": 1.0},
    }
    replace_file(folder, "parity.json", json.dumps(parity).encode())
    assert invoke(folder).exit_code == 0
    assert invoke(folder, "--rtol", "inf").stderr.startswith("Error: rtol: expected a finite number from 0 to ")


@pytest.mark.parametrize(
    ("parity", "said"),
    [
        (b"[]", "parity.json: expected a JSON object, got list"),
        (b"{", "parity.json: expected JSON"),
        (b"{}", "parity.json: expected the key 'tolerances', found none"),
        (b'{"tolerances": {"rtol": -1, "atol": 0, "channel_scale": {}}}', "expected 'rtol' to be a number from 0"),
        (b'{"tolerances": {"rtol": 0, "atol": 0, "channel_scale": {}}}', "expected the key 'requests', found none"),
    ],
)
def test_a_proof_without_its_tolerance_is_refused(copied: Copied, parity: bytes, said: str) -> None:
    folder = copied("counts")
    replace_file(folder, "parity.json", parity)
    done = invoke(folder)
    assert done.exit_code == 1
    assert said in done.stderr


@pytest.mark.parametrize(
    ("number", "changed"),
    [(np.float32(0.7), np.float32(0.701)), (np.float64(86400.0), np.float64(43200.0))],
    ids=["a weight", "the scaler of the clock"],
)
def test_another_constant_in_the_graph_is_found_by_what_it_forecasts(
    copied: Copied, number: np.floating, changed: np.floating
) -> None:
    folder = copied("load")
    graph = (folder / "model.onnx").read_bytes()
    assert graph.count(number.tobytes()) == 1
    replace_file(folder, "model.onnx", graph.replace(number.tobytes(), changed.tobytes()))  # sealed: no hash tells
    done = invoke(folder)
    assert done.exit_code == 1
    assert "sha256" not in done.stderr
    assert "golden.npz: window" in done.stderr


def with_metadata(folder: Path, facts: dict[str, Any]) -> None:
    """Add to model.onnx what fcast-export writes in it: field 14 of ModelProto, a key and a value."""
    graph = (folder / "model.onnx").read_bytes()
    for name, value in facts.items():
        key, text = f"fcast.{name}".encode(), json.dumps(value).encode()
        entry = b"\x0a" + bytes([len(key)]) + key + b"\x12" + bytes([len(text)]) + text
        graph += b"\x72" + bytes([len(entry)]) + entry
    replace_file(folder, "model.onnx", graph)


def test_a_manifest_that_contradicts_its_graph_is_found_though_its_seal_is_right(copied: Copied) -> None:
    folder = copied("load")
    manifest = json.loads((folder / "manifest.json").read_text())
    with_metadata(folder, {key: manifest[key] for key in ("levels", "bin_s", "clock", "kind")} | {"unheard_of": 1})
    assert invoke(folder).exit_code == 0
    manifest = json.loads((folder / "manifest.json").read_text())
    seal(folder, manifest | {"levels": [0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.999]})
    done = invoke(folder)
    assert done.exit_code == 1
    assert "manifest.json: expected 'levels' to be [0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99] as the graph" in done.stderr
    assert json.loads(invoke(folder, "--json").stdout)["contradictions"] != []


def test_every_device_is_run_by_default_and_one_that_fails_is_told(
    artifacts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.verify.devices", lambda: ("cpu", "cuda"))  # a build for CUDA on a machine without
    result = verify(artifacts / "load")
    assert (result.device, result.problems) == ("cpu", [])
    assert {check.device for check in result.forecasts} == {"cpu"}
    assert result.not_run.keys() == {"cuda"}
    assert "device: expected " in result.not_run["cuda"]
    done = cli_runner().invoke(main, [str(artifacts / "load")])
    assert done.exit_code == 0
    assert "Not run on cuda: device: expected " in done.stdout
    assert cli_runner().invoke(main, [str(artifacts / "load"), "--device", "cuda"]).exit_code == 1


def pack(arrays: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def golden(folder: Path) -> dict[str, np.ndarray]:
    with np.load(folder / "golden.npz") as found:
        return dict(found)


def test_another_forecast_is_found_with_its_place(copied: Copied) -> None:
    folder = copied("load")
    arrays = golden(folder)
    arrays["forecast"][4, 2, 1, 6] *= 1.01
    replace_file(folder, "golden.npz", pack(arrays))
    done = invoke(folder)
    assert done.exit_code == 1
    assert "golden.npz: window 4, step 3, request_tokens, level 0.99, batch 6: expected" in done.stderr
    assert done.stdout.count("DIFFERS") == 2
    assert invoke(folder, "--rtol", "0.02").exit_code == 0
    assert invoke(folder, "--atol", "1e6").exit_code == 0


def test_another_aggregate_is_found_with_its_place(copied: Copied) -> None:
    folder = copied("demand")
    arrays = golden(folder)
    arrays["demand"][2, 3, 4, 0] *= 1.01
    replace_file(folder, "golden.npz", pack(arrays))
    done = invoke(folder)
    assert done.exit_code == 1
    assert "golden.npz: window 2, step 4, peak of request_tokens, level 0.1, batch 6: expected" in done.stderr
    assert done.stdout.count("DIFFERS") == 2
    said = json.loads(invoke(folder, "--json").stdout)["forecasts"]
    assert {row["output"] for row in said} == {"forecast", "demand"}
    assert len(said) == 2 * (3 + 6)


def test_golden_windows_without_the_aggregates_are_refused(copied: Copied) -> None:
    folder = copied("demand")
    replace_file(folder, "golden.npz", pack({k: v for k, v in golden(folder).items() if k != "demand"}))
    with pytest.raises(ArtifactError, match="golden.npz: expected the arrays context, forecast, demand, got context"):
        read_golden(open_artifact(folder))


def test_a_forecast_that_is_no_number_differs(copied: Copied) -> None:
    folder = copied("counts")
    replace_file(folder, "model.onnx", filled(np.nan))
    done = invoke(folder)
    assert done.exit_code == 1
    assert "> 1000 %  DIFFERS" in done.stdout
    said = json.loads(invoke(folder, "--json").stdout, parse_constant=lambda text: pytest.fail(text))
    worst = said["forecasts"][0]
    assert (worst["used"], worst["max_abs"], worst["max_rel"]) == (None, None, None)


def test_a_missing_artifact_and_a_bad_option_say_so(tmp_path: Path, artifacts: Path) -> None:
    assert "expected an artifact's folder" in invoke(tmp_path / "x").stderr
    assert invoke(tmp_path / "x").exit_code == 1
    assert invoke(artifacts / "load", "--rtol", "-1").exit_code == 2
    assert "Examples:" in cli_runner().invoke(main, ["--help"]).stdout


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def header(text: str) -> bytes:
    body = text.ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(body).to_bytes(2, "little") + body.encode()


CONTEXT, FORECAST = np.ones((2, 16, 3), np.float32), np.ones((2, 4, 3, 7), np.float32)
HUGE = header("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 16, 3)}")
CODE = header("{'descr': '<f4', 'fortran_order': False, 'shape': (__import__('os').getpid(), 16, 3)}")


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"context.npy": npy(CONTEXT)}, "expected the arrays context, forecast, got context.npy"),
        ({"context.npy": npy(CONTEXT), "forecast.npy": npy(FORECAST), "x.npy": b""}, "expected the arrays"),
        ({"context.npy": b"not", "forecast.npy": npy(FORECAST)}, "expected 'context' as an .npy array"),
        ({"context.npy": HUGE, "forecast.npy": npy(FORECAST)}, "expected 'context' as float32"),
        ({"context.npy": CODE, "forecast.npy": npy(FORECAST)}, "expected 'context' as an .npy array"),
        (
            {"context.npy": npy(CONTEXT), "forecast.npy": npy(FORECAST[:, :3])},
            r"expected 'forecast' .* \(windows, 4, 3",
        ),
        ({"context.npy": npy(CONTEXT), "forecast.npy": npy(FORECAST.astype("f8"))}, "expected 'forecast' as float32"),
        ({"context.npy": npy(CONTEXT[:1]), "forecast.npy": npy(FORECAST)}, "expected 1 to 4096 windows in each array"),
        ({"context.npy": npy(CONTEXT[:0]), "forecast.npy": npy(FORECAST[:0])}, "expected 1 to 4096 windows"),
        (
            {"context.npy": np.lib.format.MAGIC_PREFIX + b"\x01\x00", "forecast.npy": npy(FORECAST)},
            "expected 'context' as an .npy array",
        ),
    ],
)
def test_golden_windows_that_are_none_are_refused(copied: Copied, files: dict[str, bytes], said: str) -> None:
    folder = copied("requests")
    replace_file(folder, "golden.npz", zipped(files))
    with pytest.raises(ArtifactError, match=f"golden.npz: {said}"):
        read_golden(open_artifact(folder))


def test_pickles_are_not_read(copied: Copied) -> None:
    folder = copied("requests")
    objects = np.array([print] * 96, dtype=object).reshape(2, 16, 3)
    replace_file(folder, "golden.npz", zipped({"context.npy": npy(objects), "forecast.npy": npy(FORECAST)}))
    with pytest.raises(ArtifactError, match="expected 'context' as float32 .* got '\\|O'"):
        read_golden(open_artifact(folder))


def test_an_archive_that_would_fill_the_memory_is_refused_unopened(copied: Copied) -> None:
    folder = copied("requests")
    bomb = bytearray(zipped({"context.npy": bytes(1 << 16), "forecast.npy": npy(FORECAST)}))
    at = bomb.rindex(b"PK\x01\x02", 0, bomb.index(b"PK\x01\x02") + 4)
    bomb[at + 24 : at + 28] = (MAX_UNPACKED_BYTES + 1).to_bytes(4, "little")
    replace_file(folder, "golden.npz", bytes(bomb))
    with pytest.raises(ArtifactError, match=f"expected at most {MAX_UNPACKED_BYTES} bytes unpacked"):
        read_golden(open_artifact(folder))


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"x" * 1000])
def test_bytes_that_are_no_archive_are_refused(copied: Copied, data: bytes) -> None:
    folder = copied("requests")
    replace_file(folder, "golden.npz", data)
    with pytest.raises(ArtifactError, match="golden.npz: expected an .npz file"):
        read_golden(open_artifact(folder))


def test_either_memory_order_of_the_golden_arrays_is_read(copied: Copied) -> None:
    folder = copied("requests")
    arrays = golden(folder)
    replace_file(folder, "golden.npz", pack({key: np.asfortranarray(array) for key, array in arrays.items()}))
    np.testing.assert_array_equal(read_golden(open_artifact(folder)).outputs["forecast"], arrays["forecast"])
