"""The versions that pyproject.toml admits are the versions that are tested."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from tests.contracts.lower_bounds import lower_bounds

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
PYPROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
PROJECT = tomllib.loads(PYPROJECT)["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
REQUIREMENTS = [Requirement(text) for text in PROJECT["dependencies"] + [r for some in EXTRAS.values() for r in some]]
PINS = dict(
    line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")
)


def test_lowest_versions_tested_are_the_lower_bounds() -> None:
    lowest = {
        requirement.name: next(s.version for s in requirement.specifier if s.operator == ">=")
        for requirement in map(Requirement, PROJECT["dependencies"] + EXTRAS["cpu"])
    }
    assert lower_bounds(PYPROJECT) == [f"{name}=={version}" for name, version in lowest.items()]
    assert set(lowest) == {"numpy", "click", "onnxruntime"}


def test_make_installs_the_lower_bounds_and_checks_them() -> None:
    makefile = (ROOT / "Makefile").read_text()
    assert re.search(r"^LOWEST := .*tests/contracts/lower_bounds\.py", makefile, re.MULTILINE)
    assert re.search(r"\.venv-lowest/\$\(PIP\) .*\$\$\(\$\(LOWEST\)\)$", makefile, re.MULTILINE)
    assert "$(call runtime-tests,lowest,$$($(LOWEST)))" in makefile


def test_an_unbounded_dependency_is_refused() -> None:
    loose = '[project]\ndependencies = ["numpy>=1.24"]\noptional-dependencies = {cpu = []}'
    with pytest.raises(ValueError, match="expected 'name>=low,<high', got 'numpy>=1.24'"):
        lower_bounds(loose)


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=str)
def test_dependency_is_bounded_on_both_sides(requirement: Requirement) -> None:
    if requirement.name != PROJECT["name"]:
        assert {s.operator for s in requirement.specifier} == {">=", "<"}


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=str)
def test_constraint_lies_within_the_bounds(requirement: Requirement) -> None:
    needed = requirement.marker is None or requirement.marker.evaluate({"python_version": "3.11"})
    if requirement.name in (PROJECT["name"], "onnxruntime-gpu") or not needed:
        return
    assert requirement.specifier.contains(PINS[requirement.name])


def test_constraints_are_public_releases() -> None:
    assert [name for name, version in PINS.items() if Version(version).local] == []


def test_the_two_onnxruntime_wheels_never_come_together() -> None:
    both = [
        name
        for name, some in EXTRAS.items()
        if {"onnxruntime", "onnxruntime-gpu"} <= {Requirement(r).name for r in some}
    ]
    assert both == []
    assert not any(Requirement(r).name.startswith("onnxruntime") for r in PROJECT["dependencies"])
