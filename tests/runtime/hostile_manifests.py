"""Manifests that are valid JSON and sealed but impossible, and some that are neither."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from tests.runtime.conftest import ARTIFACTS, seal

KEYS = tuple(json.loads((ARTIFACTS / "counts/1/manifest.json").read_text()))
VALUES: dict[str, Any] = {
    "null": None,
    "zero": 0,
    "minus one": -1,
    "2^31": 1 << 31,
    "2^40": 1 << 40,
    "10^4000": 10**4000,
    "1e308": 1e308,
    "nothing": "",
    "a surrogate": "\ud800",
    "an escape": "\x1b[2J",
    "a line end": "a\nb",
    "a long text": "x" * 100_000,
    "a list": [],
    "a list of lists": [[[]]],
    "a list of huge numbers": [10**400],
    "an object": {},
    "an object of objects": {"a": {"b": {}}},
}
NAMES = {
    "up": "../../../outside",
    "absolute": "/etc/passwd",
    "nul": "model.onnx\0",
    "line end": "model.onnx\n",
    "dot look-alike": "model․onnx",
    "slash look-alike": "a∕b",
    "wide letters": "ｍodel.onnx",
    "combining": "mo\u0301del.onnx",
    "right to left": "\u202exnno.ledom",
    "surrogate": "\udc80",
    "backslash": "..\\outside",
    "129": "a" * 129,
    "long": "a" * 1_000_000,
    "trailing slash": "model.onnx/",
    "device": "/dev/zero",
}


def edit(folder: Path, **changes: Any) -> None:
    manifest = json.loads((folder / "manifest.json").read_text()) | changes
    seal(folder, manifest)


def put(key: str, value: Any, folder: Path) -> None:
    edit(folder, **{key: value})


def file_named(name: str, folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][name] = manifest["files"]["model.onnx"]
    seal(folder, manifest)


def nested(depth: int, folder: Path) -> None:
    # By hand, as json.dumps would not; the seal cannot be right, or the text would have to come from json.dumps.
    text = (
        (folder / "manifest.json")
        .read_text()
        .replace('"params": {}', '"params": {"a": ' + "[" * depth + "]" * depth + "}")
    )
    (folder / "manifest.json").write_text(text)


def nested_and_sealed(depth: int, folder: Path) -> None:
    value: Any = []
    for _ in range(depth):
        value = [value]
    edit(folder, params={"a": value})


def write(data: bytes, folder: Path) -> None:
    (folder / "manifest.json").write_bytes(data)


def encoded(encoding: str, folder: Path) -> None:
    write((folder / "manifest.json").read_text().encode(encoding), folder)


def key_twice(folder: Path) -> None:
    text = (folder / "manifest.json").read_text()
    write(text.replace('"schema": 1,', '"schema": 1, "schema": 1,', 1).encode(), folder)


def key_twice_inside(folder: Path) -> None:
    text = (folder / "manifest.json").read_text()
    write(text.replace('"bytes"', '"bytes": 1, "bytes"', 1).encode(), folder)


def many_files(folder: Path) -> None:
    edit(folder, files={f"f{i}": {"sha256": "0" * 64, "bytes": 0} for i in range(40_000)})


def four_mebibytes(folder: Path) -> None:
    edit(folder, remark="x" * ((4 << 20) - 4000))


def many_numbers(folder: Path) -> None:
    edit(folder, remark=[0] * 1_300_000)


def bytes_of(size: Any, folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["parity.json"]["bytes"] = size
    seal(folder, manifest)


CASES: dict[str, Callable[[Path], None]] = {
    **{f"manifest: {key} is {what}": partial(put, key, v) for key in KEYS for what, v in VALUES.items()},
    **{f"manifest: a file named {what}": partial(file_named, name) for what, name in NAMES.items()},
    **{f"manifest: nested {n} deep": partial(nested, n) for n in (40, 400, 480, 900, 990, 100_000)},
    **{
        f"manifest: nested {n} deep and sealed": partial(nested_and_sealed, n)
        for n in (40, 150, 240, 320, 400, 480, 900)
    },
    **{f"manifest: in {e}": partial(encoded, e) for e in ("utf-16", "utf-32", "utf-8-sig")},
    "manifest: invalid UTF-8": partial(write, b'{"name": "\xc3\x28"}'),
    "manifest: nothing": partial(write, b""),
    "manifest: zeros": partial(write, bytes(1 << 20)),
    "manifest: 4 MiB of brackets": partial(write, b"[" * (4 << 20)),
    "manifest: 4 MiB of digits": partial(write, b'{"schema": ' + b"9" * ((4 << 20) - 20) + b"}"),
    "manifest: 4 MiB of an exponent": partial(write, b'{"schema": 1e' + b"9" * ((4 << 20) - 20) + b"}"),
    "manifest: a key twice": key_twice,
    "manifest: a key twice inside": key_twice_inside,
    "manifest: a newer schema": partial(put, "schema", 2),
    "manifest: 40,000 files": many_files,
    "manifest: 4 MiB": four_mebibytes,
    "manifest: a million numbers": many_numbers,
    "manifest: a horizon of 2^20": partial(put, "horizon", 1 << 20),
    "manifest: steps of 10^14 bins": lambda folder: edit(folder, bin_s=0.001, step_s=1e11, gap_s=1e12),
    "manifest: 2^18 levels": lambda folder: edit(folder, levels=[(i + 1) / (1 << 19) for i in range(1 << 17)]),
    **{f"manifest: a file of {n} bytes": partial(bytes_of, n) for n in (-1, 0, 1 << 40, 10**400, 1.5, True, "1")},
}
