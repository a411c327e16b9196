from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import Distribution
from itertools import pairwise
from pathlib import Path

import pytest
from click.testing import CliRunner

from export import bundle_lock
from export.bundle import Wheel, build_bundle, check_cuda, plan_bundle
from export.bundle_artifacts import open_artifacts
from export.bundle_lock import pip_settings, read_lock
from export.bundle_sets import CPU, SETS
from export.bundle_wheels import _packed, fetch
from export.cli_bundle import main
from export.errors import ExportError, StorageError
from tests.export.bundling import as_locked, make_bundle, make_plan, make_wheel

ARTIFACTS = Path(__file__).parents[1] / "runtime" / "artifacts"


@pytest.fixture
def wheels(tmp_path: Path) -> list[Path]:
    return [make_wheel(tmp_path / "index", name) for name in ("one", "two", "three")]


def sums(bundle: Path) -> dict[str, str]:
    lines = (bundle / "SHA256SUMS").read_text().splitlines()
    return {name: digest for digest, name in (line.split("  ") for line in lines)}


def test_every_file_of_a_bundle_has_its_hash_in_it(tmp_path: Path, wheels: list[Path]) -> None:
    built = make_bundle(tmp_path / "b", wheels, artifacts=[str(ARTIFACTS / "load")])
    listed = sums(built.path)
    there = {p.relative_to(built.path).as_posix() for p in built.path.rglob("*") if p.is_file()}
    assert there - set(listed) == {"SHA256SUMS", ".fcast-bundle"}
    assert all(
        hashlib.sha256((built.path / name).read_bytes()).hexdigest() == digest for name, digest in listed.items()
    )
    assert {"install.sh", "README.md", "README.zh.md", "docs/offline.md", "artifacts/load/config.pbtxt"} <= set(listed)
    assert built.fingerprint == hashlib.sha256((built.path / "SHA256SUMS").read_bytes()).hexdigest()


def test_an_artifact_may_come_from_the_bundle_itself(tmp_path: Path, wheels: list[Path]) -> None:
    first = make_bundle(tmp_path / "b", wheels, artifacts=[str(ARTIFACTS / "load")])
    again = make_bundle(tmp_path / "b", wheels, artifacts=[str(first.path / "artifacts/load")])
    assert again.fingerprint == first.fingerprint


def test_no_page_has_an_open_place(tmp_path: Path, wheels: list[Path]) -> None:
    for artifacts in ([], [str(ARTIFACTS / "load")]):
        built = make_bundle(tmp_path / "b", wheels, artifacts=artifacts)
        for page in ("README.md", "README.zh.md"):
            text = (built.path / page).read_text()
            assert "<!--" not in text
            assert "@" not in text


def test_a_second_build_fetches_only_what_is_not_there(tmp_path: Path, wheels: list[Path]) -> None:
    first = make_bundle(tmp_path / "b", wheels)
    assert (first.fetched, first.reused) == (3, 0)
    again = make_bundle(tmp_path / "b", wheels)
    assert (again.fetched, again.reused, again.fingerprint) == (0, 3, first.fingerprint)
    kept = tmp_path / "b/wheelhouse" / wheels[0].name
    kept.write_bytes(kept.read_bytes()[:-1] + b"x")
    mended = make_bundle(tmp_path / "b", [*wheels[:2], make_wheel(tmp_path / "index", "four")])
    assert (mended.fetched, mended.reused) == (2, 1)
    assert kept.read_bytes() == wheels[0].read_bytes()
    assert not (tmp_path / "b/wheelhouse" / wheels[2].name).exists()


def test_a_broken_download_leaves_what_was_whole(tmp_path: Path, wheels: list[Path]) -> None:
    before = make_bundle(tmp_path / "b", wheels)
    plan = make_plan([*wheels, make_wheel(tmp_path / "index", "four"), make_wheel(tmp_path / "index", "five")])
    (tmp_path / "index" / plan.wheels[-1].file).unlink()
    project = tmp_path / "project/fcast-0.1-py3-none-any.whl"
    with pytest.raises(ExportError, match="five-1.0-py3-none-any.whl: expected pip to fetch it, got: .*run it again"):
        build_bundle(plan, tmp_path / "b", project=project, on_wheel=lambda line: None)
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=tmp_path / "b", check=True)
    assert hashlib.sha256((tmp_path / "b/SHA256SUMS").read_bytes()).hexdigest() == before.fingerprint
    assert (tmp_path / "b/wheelhouse" / plan.wheels[-2].file).exists()
    assert not (tmp_path / "b/.partial").exists()


@pytest.mark.parametrize("after", ["one", "two"])
def test_an_interrupted_build_does_not_look_finished(tmp_path: Path, wheels: list[Path], after: str) -> None:
    project = make_wheel(tmp_path / "project", "fcast", "0.1")

    def interrupt(line: str) -> None:
        if after in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_bundle(make_plan(wheels), tmp_path / "b", project=project, on_wheel=interrupt)
    assert not (tmp_path / "b/SHA256SUMS").exists()
    assert not (tmp_path / "b/install.sh").exists()
    assert make_bundle(tmp_path / "b", wheels).reused == ["one", "two"].index(after)


def test_what_a_killed_build_left_is_not_part_of_the_next(tmp_path: Path, wheels: list[Path]) -> None:
    make_bundle(tmp_path / "b", wheels[:1])
    (tmp_path / "b/.partial").mkdir()
    for left in (".partial/two-1.0-py3-none-any.whl", ".SHA256SUMS"):
        (tmp_path / "b" / left).write_text("half")
    built = make_bundle(tmp_path / "b", wheels)
    assert [name for name in sums(built.path) if name.startswith(".")] == []
    assert not (tmp_path / "b/.partial").exists()


def test_another_hash_than_the_lock_is_refused(tmp_path: Path, wheels: list[Path]) -> None:
    (tmp_path / "wheelhouse").mkdir()
    with pytest.raises(ExportError, match="one-1.0-py3-none-any.whl: expected pip to fetch it, got: .*hash"):
        fetch([replace(as_locked(wheels[0]), sha256="0" * 64)], tmp_path / "wheelhouse", python="3.11", on_wheel=print)
    assert list((tmp_path / "wheelhouse").iterdir()) == []


def test_a_disk_that_is_too_small_is_refused_before_anything_is_fetched(tmp_path: Path, wheels: list[Path]) -> None:
    huge = replace(as_locked(wheels[0]), size_bytes=1 << 60)
    with pytest.raises(StorageError, match=r"expected 1152921504\.6 GB of free space for the downloads, got .* GB"):
        fetch([huge], tmp_path, python="3.11", on_wheel=lambda line: pytest.fail(line))


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path, wheels: list[Path]) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "thesis.tex").touch()
    with pytest.raises(ExportError, match="b: expected a new or empty folder, or a bundle, got another"):
        make_bundle(tmp_path / "b", wheels)


def locked(name: str, version: str) -> Wheel:
    return Wheel(name, version, f"{name.replace('-', '_')}-{version}-py3-none-any.whl", "", "", 1 << 30)


CU12 = [locked("torch", "2.10.0"), locked("nvidia-cublas-cu12", "12.8"), locked("nvidia-cuda-runtime-cu12", "12.8")]


@pytest.mark.parametrize(
    ("wheels", "cuda", "text"),
    [
        (CU12, "none", r"torch: expected a CPU build, got torch 2.10.0 with 2.1 GB of CUDA 12; .*PIP_EXTRA_INDEX_URL"),
        (CU12, "13", "torch 2.10.0: expected wheels for CUDA 13 alone, got some for CUDA 12; "),
        (
            [*CU12, locked("nvidia-cuda-runtime", "13.0")],
            "12",
            "expected wheels for CUDA 12 alone, got some for CUDA 12, 13",
        ),
        (
            CU12,
            "11",
            r"torch: expected a build for CUDA 11, got none .* PyTorch's index for CUDA 11.8 alone: name it in",
        ),
    ],
)
def test_wheels_for_another_cuda_are_refused(wheels: list[Wheel], cuda: str, text: str) -> None:
    with pytest.raises(ExportError, match=text):
        check_cuda(wheels, next(one for one in (*SETS, CPU) if one.cuda == cuda), "train")


def test_wheels_for_the_cuda_that_was_asked_for_pass() -> None:
    check_cuda(CU12, SETS[1], "train")
    check_cuda([locked("torch", "2.7.1+cu118"), locked("nvidia-cublas-cu11", "11.11")], SETS[3], "train")
    check_cuda([locked("torch", "2.13.0+cpu")], CPU, "train")


def test_an_opset_that_the_runtime_does_not_know_is_refused_with_the_command_that_helps() -> None:
    path = str(ARTIFACTS / "load")
    assert len(open_artifacts([path, path], CPU)) == 1
    with pytest.raises(
        ExportError,
        match=r"load/\d+: expected opset 12 or lower, .*got \d+; fcast-export runs/load --name load --opset 12",
    ):
        open_artifacts([path], replace(CPU, opset=12))


def test_a_damaged_artifact_does_not_travel(tmp_path: Path) -> None:
    shutil.copytree(ARTIFACTS / "load", tmp_path / "load")
    graph = next((tmp_path / "load").glob("*/model.onnx"))
    graph.write_bytes(graph.read_bytes()[:-1])
    with pytest.raises(ExportError, match="model.onnx: expected .* bytes, found .*copy it again"):
        open_artifacts([str(tmp_path / "load")], CPU)


def test_an_installed_fcast_is_packed_as_the_wheel_that_it_was(tmp_path: Path) -> None:
    original = make_wheel(tmp_path / "index", "fcast", metadata="Provides-Extra: cpu\n", module="export/__init__.py")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
    subprocess.run([*pip, "--target", tmp_path / "site", original], check=True, capture_output=True)
    packed = _packed(next(iter(Distribution.discover(name="fcast", path=[str(tmp_path / "site")]))), tmp_path)
    assert packed.name == original.name
    subprocess.run([*pip, "--target", tmp_path / "again", packed], check=True, capture_output=True)
    assert (tmp_path / "again/export/__init__.py").read_text() == "version = '1.0'\n"


def test_pip_says_where_wheels_come_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "https://a.example/simple https://b.example/simple")
    assert pip_settings()["extra-index-url"] == "https://a.example/simple https://b.example/simple"
    flags = bundle_lock._as_pip_is_set()
    assert [b for a, b in pairwise(flags) if a == "--index"] == [
        "https://a.example/simple",
        "https://b.example/simple",
    ]


needs_uv = pytest.mark.skipif(
    shutil.which("uv", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])) is None,
    reason="uv is not installed",
)


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """pip set to a folder of wheels, and to nothing else."""
    for name in [name for name in os.environ if name.startswith(("PIP_", "UV_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    make_wheel(tmp_path / "index", "pip", "25.0")
    make_wheel(tmp_path / "index", "onnxruntime", "1.20.0")
    return tmp_path / "index"


@needs_uv
def test_the_lock_is_that_of_the_other_machine(index: Path, tmp_path: Path) -> None:
    make_wheel(index, "old", tag="cp310-cp310-manylinux_2_17_aarch64")
    make_wheel(index, "old", tag="cp311-cp311-manylinux_2_17_x86_64")
    make_wheel(index, "backport")
    needs = "Requires-Dist: old; platform_machine == 'aarch64'\nRequires-Dist: backport; python_version < '3.11'\n"
    project = make_wheel(tmp_path, "fcast", "0.1", metadata=f"Provides-Extra: cpu\n{needs}")
    plan = plan_bundle(CPU, role="runtime", python="3.10", platform="linux_aarch64", project=project)
    assert [wheel.file for wheel in plan.wheels] == [
        "backport-1.0-py3-none-any.whl",
        "old-1.0-cp310-cp310-manylinux_2_17_aarch64.whl",
        "pip-25.0-py3-none-any.whl",
    ]
    assert [wheel.glibc_minor for wheel in plan.wheels] == [0, 17, 0]
    assert plan.download_bytes == sum((index / wheel.file).stat().st_size for wheel in plan.wheels)
    other = plan_bundle(CPU, role="runtime", python="3.12", platform="linux_x86_64", project=project)
    assert [wheel.name for wheel in other.wheels] == ["pip"]


def test_the_wheel_that_fits_best_is_taken_whatever_the_lock_lists(tmp_path: Path) -> None:
    tags = (
        *("cp311-cp311-win_amd64", "cp312-cp312-manylinux_2_28_x86_64", "cp311-cp311-manylinux_2_28_aarch64"),
        *("cp311-cp311-manylinux_2_39_x86_64", "py3-none-any", "cp38-abi3-manylinux2014_x86_64"),
        *("cp311-cp311-manylinux2014_x86_64", "1-cp311-cp311-manylinux2014_x86_64", "cp311-cp311-musllinux_1_2_x86_64"),
    )
    urls = [f"https://a.example/one-1.0-{tag}.whl" for tag in tags]
    listed = ", ".join(f"{{url = '{url}', size = 9, hashes = {{sha256 = '0'}}}}" for url in urls)
    path = tmp_path / "pylock.toml"
    path.write_text(f"[[packages]]\nname = 'one'\nversion = '1.0'\nwheels = [{listed}]\n")

    def taken(python: str, platform: str) -> str:
        return read_lock(path, python=python, platform=platform)[0].file

    assert taken("3.11", "linux_x86_64") == "one-1.0-1-cp311-cp311-manylinux2014_x86_64.whl"
    assert taken("3.12", "linux_x86_64") == "one-1.0-cp312-cp312-manylinux_2_28_x86_64.whl"
    assert taken("3.13", "linux_x86_64") == "one-1.0-cp38-abi3-manylinux2014_x86_64.whl"
    assert taken("3.12", "linux_aarch64") == "one-1.0-py3-none-any.whl"
    path.write_text(path.read_text().replace("py3-none-any", "py2-none-any"))
    with pytest.raises(ExportError, match=r"one 1\.0: expected a wheel for that machine, got none; choose another"):
        taken("3.12", "linux_aarch64")


@needs_uv
def test_pip_settings_may_name_files_beside_the_caller(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_wheel(index, "onnxruntime", "1.21.0")
    (tmp_path / "here.txt").write_text("onnxruntime==1.20.0\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PIP_FIND_LINKS", "index")
    monkeypatch.setenv("PIP_CONSTRAINT", "here.txt")
    needs = "Provides-Extra: cpu\nRequires-Dist: onnxruntime; extra == 'cpu'\n"
    project = make_wheel(tmp_path, "fcast", "0.1", metadata=needs)
    plan = plan_bundle(CPU, role="runtime", python="3.11", platform="linux_x86_64", project=project)
    built = build_bundle(plan, tmp_path / "b", project=project, on_wheel=lambda line: None)
    assert built.fetched == 2
    assert (tmp_path / "b/wheelhouse/onnxruntime-1.20.0-py3-none-any.whl").exists()


@needs_uv
def test_a_cpu_build_does_not_stand_in_for_cuda(index: Path, tmp_path: Path) -> None:
    make_wheel(index, "torch", "2.13.0", metadata="Requires-Dist: nvidia-cuda-runtime\n")
    make_wheel(index, "torch", "2.13.0+cpu")
    make_wheel(index, "nvidia_cuda_runtime", "13.0.96")
    make_wheel(index, "onnxruntime_gpu", "1.31.1")
    needs = (
        "Provides-Extra: export\nProvides-Extra: cpu\nProvides-Extra: gpu\nRequires-Dist: torch; extra == 'export'\n"
    )
    project = make_wheel(tmp_path, "fcast", "0.1", metadata=needs)
    found = {}
    for chosen in (CPU, SETS[0]):
        plan = plan_bundle(chosen, role="train", python="3.11", platform="linux_x86_64", project=project)
        found[chosen.cuda] = next(wheel.version for wheel in plan.wheels if wheel.name == "torch")
    assert found == {"none": "2.13.0+cpu", "13": "2.13.0"}


@needs_uv
def test_what_is_not_to_be_had_is_said_in_one_line(index: Path, tmp_path: Path) -> None:
    project = make_wheel(tmp_path, "fcast", "0.1", metadata="Provides-Extra: cpu\nRequires-Dist: nowhere>=7\n")
    with pytest.raises(
        ExportError, match=r"requirements: expected wheels .* got: .*nowhere.*; give pip an index"
    ) as told:
        plan_bundle(CPU, role="runtime", python="3.11", platform="linux_x86_64", project=project)
    assert "\n" not in str(told.value)


def test_wrong_usage_exits_2_without_building_anything(tmp_path: Path) -> None:
    out = tmp_path / "b"
    for options, text in (
        (["--driver", "440"], "--driver: expected 450.80.02"),
        ([], "--cuda, --driver: expected one"),
    ):
        result = CliRunner().invoke(main, ["--out", str(out), *options], prog_name="fcast-bundle")
        assert (result.exit_code, text in result.output) == (2, True)
    assert not out.exists()
