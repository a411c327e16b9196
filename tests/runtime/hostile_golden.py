"""Archives of golden windows that would fill the memory, mislead the reader, or run code."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from tests.runtime.conftest import ARTIFACTS, replace_file
from tests.runtime.hostile_files import EXECUTED

with np.load(ARTIFACTS / "counts/1/golden.npz") as _golden:
    CONTEXT, FORECAST = _golden["context"][:2], _golden["forecast"][:2]


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def headed(header: str, body: bytes = b"") -> bytes:
    text = header.ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode() + body


GOOD = {"context.npy": npy(CONTEXT), "forecast.npy": npy(FORECAST)}


def zipped(members: list[tuple[str, bytes]], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return buffer.getvalue()


def arrays(folder: Path, **members: bytes) -> None:
    replace_file(folder, "golden.npz", zipped(list((GOOD | {f"{k}.npy": v for k, v in members.items()}).items())))


def context(data: bytes, folder: Path) -> None:
    arrays(folder, context=data)


def raw(data: bytes, folder: Path) -> None:
    replace_file(folder, "golden.npz", data)


def methods(method: int, folder: Path) -> None:
    raw(zipped(list(GOOD.items()), method), folder)


def real_bomb(folder: Path) -> None:
    """More zeros than a reader unpacks, in a megabyte, honestly declared."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name in GOOD:
            with archive.open(name, "w", force_zip64=True) as file:
                for _ in range(130):
                    file.write(bytes(1 << 20))
    raw(buffer.getvalue(), folder)


def understated_bomb(folder: Path) -> None:
    """Zeros without end behind a small declared size."""
    data = bytearray(zipped([("context.npy", npy(CONTEXT) + bytes(40 << 20)), ("forecast.npy", npy(FORECAST))]))
    at = data.index(b"PK\x01\x02")
    data[at + 24 : at + 28] = struct.pack("<I", len(npy(CONTEXT)))
    raw(bytes(data), folder)


_DIRECTORY = (b"PK\x01\x02" + bytes(42)) * 300_000


def many_members(folder: Path) -> None:
    """A central directory of very many entries that say nothing."""
    end = b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 0xFFFF, 0xFFFF, len(_DIRECTORY), 0, 0)
    raw(_DIRECTORY + end, folder)


def many_members_after_zip64(folder: Path) -> None:
    """The same, hidden behind a small end record that the 64-bit one overrides."""
    size = len(_DIRECTORY)
    end64 = b"PK\x06\x06" + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, size // 46, size // 46, size, 0)
    locator = b"PK\x06\x07" + struct.pack("<IQI", 0, size, 1)
    end = b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 2, 2, 100, 0, 0)
    raw(_DIRECTORY + end64 + locator + end, folder)


def member_twice(folder: Path) -> None:
    good = zipped([*GOOD.items(), ("contexu.npy", GOOD["context.npy"])])
    raw(good.replace(b"contexu", b"context"), folder)


def overlapping(folder: Path) -> None:
    """Both entries of the directory lead to the same bytes."""
    data = bytearray(zipped(list(GOOD.items())))
    second = data.rindex(b"PK\x01\x02")
    data[second + 42 : second + 46] = bytes(4)
    raw(bytes(data), folder)


def directory_field(at: int, value: bytes, folder: Path) -> None:
    """Overwrites a field of the first entry in the directory."""
    data = bytearray(zipped(list(GOOD.items())))
    start = data.index(b"PK\x01\x02") + at
    data[start : start + len(value)] = value
    raw(bytes(data), folder)


def name_not_utf8(folder: Path) -> None:
    data = zipped([("\u00e9ontext.npy", GOOD["context.npy"]), ("forecast.npy", GOOD["forecast.npy"])])
    raw(data.replace("\u00e9".encode(), b"\xff\xff"), folder)


def object_array(folder: Path) -> None:
    mark = folder.parents[2] / EXECUTED

    class Payload:
        def __reduce__(self) -> tuple[object, ...]:
            return open, (str(mark), "w")

    array = np.empty((2, 4, 1), object)
    array[:] = Payload()
    context(npy(array), folder)


def numbers(value: float, folder: Path, *, key: str = "context") -> None:
    array = {"context": CONTEXT, "forecast": FORECAST}[key].copy()
    array.flat[0] = value
    arrays(folder, **{key: npy(array)})


_HEADER = "{'descr': %s, 'fortran_order': %s, 'shape': %s, }"
_HEADERS = {
    "2^40 windows": _HEADER % ("'<f4'", "False", "(1099511627776, 4, 1)"),
    "a negative dimension": _HEADER % ("'<f4'", "False", "(-2, 4, 1)"),
    "two negative dimensions": _HEADER % ("'<f4'", "False", "(-2, -4, 1)"),
    "a dimension of 4000 bits": _HEADER % ("'<f4'", "False", f"({1 << 4000}, 4, 1)"),
    "no windows": _HEADER % ("'<f4'", "False", "(0, 4, 1)"),
    "booleans as dimensions": _HEADER % ("'<f4'", "False", "(True, 4, True)"),
    "floats as dimensions": _HEADER % ("'<f4'", "False", "(2.0, 4, 1)"),
    "an order that is a number": _HEADER % ("'<f4'", "7", "(2, 4, 1)"),
    "a type of fields": _HEADER % ("[('a', '<f4')]", "False", "(2, 4, 1)"),
    "a type of objects": _HEADER % ("'|O'", "False", "(2, 4, 1)"),
    "a type of 2^31 bytes": _HEADER % ("'|V2147483647'", "False", "(2, 4, 1)"),
    "big-endian numbers": _HEADER % ("'>f4'", "False", "(2, 4, 1)"),
    "a key twice": "{'descr': '<f4', 'descr': '|O', 'fortran_order': False, 'shape': (2, 4, 1), }",
    "Python 2's long numbers": _HEADER % ("'<f4'", "False", "(2L, 4L, 1L)"),
    "an endless parenthesis": "(" * 4000,
    "endless minuses": "-" * 4000 + "1",
    "endless brackets": "[" * 2000 + "]" * 2000,
    "an open string": "{'descr': '''",
    "a wrong indent": "  1\n 2\n",
    "a NUL": "\0",
    "code": "__import__('os').system('false')",
}

CASES: dict[str, Callable[[Path], None]] = {
    **{f"golden: {w}": partial(context, headed(h, CONTEXT.tobytes())) for w, h in _HEADERS.items()},
    "golden: a real bomb": real_bomb,
    "golden: an understated bomb": understated_bomb,
    "golden: 300,000 members": many_members,
    "golden: 300,000 members behind zip64": many_members_after_zip64,
    "golden: a member twice": member_twice,
    "golden: overlapping members": overlapping,
    "golden: an archive in an archive": partial(context, zipped(list(GOOD.items()))),
    "golden: packed with bzip2": partial(methods, zipfile.ZIP_BZIP2),
    "golden: packed with LZMA": partial(methods, zipfile.ZIP_LZMA),
    "golden: an unknown method": partial(directory_field, 10, b"\x63\x00"),
    "golden: a method it was not packed with": partial(directory_field, 10, b"\x0e\x00"),
    "golden: encrypted": partial(directory_field, 8, b"\x01\x00"),
    "golden: an entry that starts at the end": partial(directory_field, 42, b"\xff\xff\xff\x7f"),
    "golden: a huge extra field": partial(directory_field, 30, b"\xff\xff"),
    "golden: a name that is not UTF-8": name_not_utf8,
    "golden: a comment": partial(raw, zipped(list(GOOD.items()))[:-2] + b"\x05\x00hello"),
    "golden: bytes before": partial(raw, bytes(1000) + zipped(list(GOOD.items()))),
    "golden: an .npy": partial(raw, npy(CONTEXT)),
    "golden: objects": object_array,
    "golden: a member that leads out": lambda folder: raw(
        zipped([("../context.npy", GOOD["context.npy"]), ("/forecast.npy", GOOD["forecast.npy"])]), folder
    ),
    "golden: a name with an escape": lambda folder: raw(
        zipped([("\x1b[2J\n.npy", GOOD["context.npy"]), ("forecast.npy", GOOD["forecast.npy"])]), folder
    ),
    **{f"golden: a context of {v}": partial(numbers, v) for v in (np.nan, np.inf, -1.0)},
    **{f"golden: a forecast of {v}": partial(numbers, v, key="forecast") for v in (np.nan, np.inf, -1.0, 1e38)},
}
