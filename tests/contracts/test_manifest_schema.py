"""docs/manifest.schema.json and docs/parity.schema.json against the code that reads the files."""

from __future__ import annotations

import copy
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from runtime.artifact import open_artifact
from runtime.errors import ArtifactError
from runtime.manifest import parse_manifest, self_sha256
from runtime.proof import read_tolerance

ROOT = Path(__file__).parents[2]
VERSIONS = sorted([*ROOT.glob("tests/runtime/artifacts/*/[0-9]*"), *ROOT.glob("tests/data/artifacts/*/*/[0-9]*")])
MANIFESTS = [json.loads((folder / "manifest.json").read_bytes()) for folder in VERSIONS]

# What docs/artifact.md lists as beyond a JSON schema, by the code's own words.
INEXPRESSIBLE = (
    "expected self_sha256 ",  # a hash
    "'levels' to be increasing numbers",
    "'step_s' to be a whole multiple of bin_s",
    "'step_s' to be a number from ",  # at least bin_s
    "'gap_s' to be at least bin_s",
    "finite, non-negative numbers",  # as many in a row of `prior` as there are levels
    "'prior' to be rows that do not decrease",
    "a window and a forecast of at most ",  # a product
    "such that the forecast spans at most ",  # another
    "bytes together",  # a sum, of the sizes in `files`
    "numbers of state together",  # another, in `step`
)


def schema(name: str) -> Draft202012Validator:
    content = json.loads((ROOT / f"docs/{name}.schema.json").read_bytes())
    Draft202012Validator.check_schema(content)
    return Draft202012Validator(content)


MANIFEST = schema("manifest")


def refusal(manifest: Any) -> str | None:
    """What the code says against a manifest; None when it takes it."""
    try:
        parse_manifest(json.dumps(manifest).encode(), where="manifest.json")
    except ArtifactError as error:
        return str(error)
    return None


INTEGERS = (-1, 0, 1, 17, 255, 1 << 20, (1 << 20) + 1, 1 << 53, (1 << 53) + 1, 10**12, 10**12 + 1, 10**300)
BOUNDS = (*INTEGERS, -0.5, 0.99e-3, 1e-3, 0.5, 0.999, 1.001, 60.5, 34 * 10**37, 35 * 10**37)
NUMBERS = st.one_of(
    st.sampled_from(BOUNDS),
    st.integers(),
    # To a JSON schema 2.0 is an integer, to the code it is none.
    st.floats(allow_nan=False, allow_infinity=False).filter(lambda value: not value.is_integer()),
)
TEXTS = st.one_of(
    st.sampled_from(["", "a" * 1024, "a" * 1025, "0" * 63, "0" * 64, "0" * 65, "g" * 64, "A" * 64]),
    st.sampled_from(
        ["requests", "load", "epoch", "relative", "forecast", "demand", "context", "time_s", "tokens", "s"]
    ),
    st.text(max_size=3).filter(str.isprintable),
)
ENTRIES = st.fixed_dictionaries({"sha256": st.just("0" * 64) | TEXTS, "bytes": st.just(7) | NUMBERS})
ANYTHING = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=2),
    max_leaves=4,
)
OPAQUE = ("params", "trace", "scores", "libraries")


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value that the code looks at, and of one more key at each level."""
    keys = [*value, "another"] if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    found = [(*path, key) for key in keys]
    for key in keys:
        if key not in OPAQUE and key != "another":
            found += places(value[key], (*path, key))
    return found


@st.composite
def mutated(draw: st.DrawFn) -> dict[str, Any]:
    """A good manifest with one value dropped or replaced, at any depth."""
    manifest = copy.deepcopy(draw(st.sampled_from(MANIFESTS)))
    top = draw(st.sampled_from(sorted({*manifest, "outputs", "another"})))
    path = draw(st.sampled_from([place for place in places(manifest) if place[0] == top] or [(top,)]))
    parent: Any = manifest
    for key in path[:-1]:
        parent = parent[key]
    key = path[-1]
    before = parent.get(key) if isinstance(parent, dict) else parent[key]
    if draw(st.integers(0, 7)) == 0:
        if before is not None or isinstance(parent, list):
            del parent[key]
    elif path[0] == "files" and len(path) == 2:
        parent.pop(key, None)
        parent[draw(st.sampled_from([key, "a.b", "manifest.json", "../x", ".x", "", "a/b"]))] = draw(ENTRIES)
    else:
        alike = NUMBERS if isinstance(before, (int, float)) else TEXTS if isinstance(before, str) else ANYTHING
        parent[key] = draw(alike | ANYTHING)
    if path != ("self_sha256",):
        manifest["self_sha256"] = self_sha256(manifest)
    return manifest


@pytest.mark.parametrize("manifest", MANIFESTS, ids=["-".join(folder.parts[-3:]) for folder in VERSIONS])
def test_every_kept_manifest_passes_the_schema_and_the_code(manifest: dict[str, Any]) -> None:
    assert [error.message for error in MANIFEST.iter_errors(manifest)] == []
    assert refusal(manifest) is None


@settings(max_examples=600, deadline=None, derandomize=True, database=None)
@given(mutated())
def test_schema_and_code_judge_a_changed_manifest_alike(manifest: dict[str, Any]) -> None:
    said = refusal(manifest)
    if said is None:
        assert [error.message for error in MANIFEST.iter_errors(manifest)] == []
    elif not any(rule in said for rule in INEXPRESSIBLE):
        assert not MANIFEST.is_valid(manifest), said


def test_schema_and_code_have_the_same_bounds_for_every_number() -> None:
    manifest = min(MANIFESTS, key=lambda manifest: len(manifest["channels"]))
    numbers = 0
    for *above, key in places(manifest):
        changed = copy.deepcopy(manifest)
        parent: Any = changed
        for step in above:
            parent = parent[step]
        if not isinstance(parent, list) and not isinstance(parent.get(key), (int, float)):
            continue
        for bound in BOUNDS:
            parent[key] = bound
            changed["self_sha256"] = self_sha256(changed)
            said = refusal(changed)
            excused = any(rule in str(said) for rule in INEXPRESSIBLE if rule != "finite, non-negative numbers")
            assert excused or MANIFEST.is_valid(changed) == (said is None), (above, key, bound, said)
            numbers += 1
    assert numbers > 20 * len(BOUNDS)


@pytest.mark.parametrize("key", sorted(set(MANIFESTS[0]) - {"config_sha256", "outputs"}))
def test_schema_and_code_want_the_same_keys(key: str) -> None:
    manifest = {name: value for name, value in MANIFESTS[0].items() if name != key}
    if key != "self_sha256":
        manifest["self_sha256"] = self_sha256(manifest)
    assert not MANIFEST.is_valid(manifest)
    assert refusal(manifest) is not None


def test_only_the_code_tells_a_whole_number_from_a_float_without_a_fraction() -> None:
    manifest = {**MANIFESTS[0], "context": float(MANIFESTS[0]["context"])}
    manifest["self_sha256"] = self_sha256(manifest)
    assert MANIFEST.is_valid(manifest)
    assert "'context' to be a whole number" in str(refusal(manifest))


def test_a_newer_schema_is_refused_by_both() -> None:
    manifest = {**MANIFESTS[0], "schema": 2}
    manifest["self_sha256"] = self_sha256(manifest)
    assert not MANIFEST.is_valid(manifest)
    assert "written by a newer fcast" in str(refusal(manifest))


@pytest.mark.parametrize("folder", VERSIONS, ids=lambda folder: "-".join(folder.parts[-3:]))
def test_every_kept_proof_passes_its_schema(folder: Path) -> None:
    assert schema("parity").is_valid(json.loads((folder / "parity.json").read_bytes()))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("tolerances",), None),
        (("tolerances", "rtol"), None),
        (("tolerances", "rtol"), -1),
        (("tolerances", "atol"), "1e-5"),
        (("tolerances", "channel_scale"), {}),
        (("tolerances", "channel_scale", "requests"), 0),
    ],
)
def test_a_proof_without_its_tolerance_is_refused_by_both(path: tuple[str, ...], value: Any, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(ROOT / "tests/runtime/artifacts/counts/1", tmp_path / "1"))
    report = json.loads((folder / "parity.json").read_bytes())
    within = report
    for key in path[:-1]:
        within = within[key]
    within[path[-1]] = value
    (folder / "parity.json").write_text(json.dumps(report))
    reseal(folder)
    assert not schema("parity").is_valid(report)
    with pytest.raises(ArtifactError, match=r"parity\.json: expected"):
        read_tolerance(open_artifact(folder))


def reseal(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_bytes())
    content = (folder / "parity.json").read_bytes()
    manifest["files"]["parity.json"] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    manifest["self_sha256"] = self_sha256(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))
