from __future__ import annotations

import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from export.bundle_sets import CPU, SETS, WheelSet, choose_set, dotted, requirements
from runtime.doctor_cuda import OLDEST_DRIVER
from training.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

EXTRAS = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]["optional-dependencies"]
EXPORTED_OPSETS = range(17, 22)
"""What fcast-export can write."""


def bounds(requirement: str) -> tuple[Version, Version]:
    """Lowest and first refused version."""
    found = {one.operator: Version(one.version) for one in Requirement(requirement).specifier}
    return found[">="], found["<"]


def chosen(python: str = "3.11", capability: float | None = None, **machine: str) -> WheelSet:
    return choose_set(cuda=machine.get("cuda"), driver=machine.get("driver"), python=python, capability=capability)


@pytest.mark.parametrize(
    ("driver", "cuda"),
    [
        *(("580.65.06", "13"), ("580", "13"), ("595.10", "13"), ("580.65.05", "12"), ("575.57.08", "12")),
        *(("525.60.13", "12"), ("535", "12"), ("525.60.12", "11"), ("470.256.02", "11"), ("450", "11")),
    ],
)
def test_a_driver_gets_the_newest_cuda_that_it_runs(driver: str, cuda: str) -> None:
    assert chosen(driver=driver).cuda == cuda


def test_a_newer_driver_serves_a_python_that_the_newest_wheels_have_left() -> None:
    assert chosen(driver="580", python="3.10").cuda == "12"


@pytest.mark.parametrize(("capability", "torch"), [(None, ">=2.9,<2.11"), (7.0, ">=2.9,<2.11"), (6.1, ">=2.7,<2.8")])
def test_an_old_gpu_gets_a_torch_that_has_kernels_for_it(capability: float | None, torch: str) -> None:
    assert chosen(driver="535", capability=capability).torch == torch


@pytest.mark.parametrize(
    ("machine", "python", "capability", "text"),
    [
        ({"driver": "440.33"}, "3.11", None, r"--driver: expected 450\.80\.02 or newer, .*got 440\.33; .*--cuda none"),
        ({"driver": "new"}, "3.11", None, "--driver: expected a version such as 535 or 535.183.01, got 'new'"),
        ({}, "3.11", None, "--cuda, --driver: expected one of the two"),
        ({"cuda": "12", "driver": "535"}, "3.11", None, "--cuda, --driver: expected one of the two"),
        ({"cuda": "13"}, "3.10", None, r"--python: expected 3\.11 to 3\.14, .*got 3\.10; .*or --cuda 12"),
        ({"cuda": "11"}, "3.13", None, r"--python: expected 3\.10 to 3\.12, .*got 3\.13; .*or --cuda none"),
        ({"cuda": "none"}, "3.9", None, r"--python: expected 3\.10 to 3\.14, .*got 3\.9; use one of these"),
        ({"cuda": "none"}, "three", None, "--python: expected a version such as 3.11, got 'three'"),
        (
            {"cuda": "13"},
            "3.11",
            7.0,
            r"--compute-capability: expected 7\.5 or higher, .*got 7\.0; build with --cuda 12",
        ),
        (
            {"cuda": "12"},
            "3.11",
            3.5,
            r"--compute-capability: expected 6\.0 or higher, .*got 3\.5; build with --cuda none",
        ),
    ],
)
def test_what_no_public_wheel_fits_is_refused(
    machine: dict[str, str], python: str, capability: float | None, text: str
) -> None:
    with pytest.raises(ConfigError, match=text):
        chosen(python=python, capability=capability, **machine)


@pytest.mark.parametrize("one", [*SETS, CPU], ids=lambda one: f"{one.cuda}-{one.capability}")
@pytest.mark.parametrize("role", ["train", "runtime"])
def test_every_set_lies_within_the_project_bounds(one: WheelSet, role: str) -> None:
    admitted = {
        Requirement(text).name: bounds(text)
        for name in ("cpu", "gpu", "train")
        for text in EXTRAS[name]
        if ">=" in text
    }
    extras, _, constraints = requirements(one, role)
    assert set(extras.split(",")) <= set(EXTRAS)
    for constraint in constraints:
        low, high = admitted[Requirement(constraint).name]
        lowest, beyond = bounds(constraint)
        assert low <= lowest < beyond <= high


@pytest.mark.parametrize("one", [*SETS, CPU], ids=lambda one: f"{one.cuda}-{one.capability}")
def test_every_set_loads_what_fcast_exports(one: WheelSet) -> None:
    assert one.opset >= max(EXPORTED_OPSETS)


def test_the_two_onnxruntime_wheels_never_come_together() -> None:
    for one in (*SETS, CPU):
        for role in ("train", "runtime"):
            extras, _, constraints = requirements(one, role)
            assert len({"cpu", "gpu"} & set(extras.split(","))) == 1
            gpu = any(constraint.startswith("onnxruntime-gpu") for constraint in constraints)
            assert gpu == ("gpu" in extras.split(","))


def test_the_doctor_asks_for_the_same_drivers() -> None:
    assert {int(one.cuda) for one in SETS} == set(OLDEST_DRIVER)
    assert all(dotted(one.driver).startswith(OLDEST_DRIVER[int(one.cuda)]) for one in SETS)


def test_a_driver_is_written_as_nvidia_does() -> None:
    assert [dotted(one.driver) for one in SETS] == ["580.65.06", "525.60.13", "525.60.13", "450.80.02"]


@pytest.mark.parametrize(("page", "to"), [("offline.md", "to"), ("offline.zh.md", "到")])
def test_the_pages_have_the_table(page: str, to: str) -> None:
    text = (Path(__file__).parents[2] / "docs" / page).read_text(encoding="utf-8")
    for one in SETS:
        pythons = f"3.{one.pythons[0]} {to} 3.{one.pythons[1]}"
        assert f"| {one.cuda} | {dotted(one.driver)} | {one.capability} | {pythons} | {one.torch}" in text
        assert f"| {one.onnxruntime} | {one.opset} |" in text
