"""Things that are no plain file where one should be, and folders that lead elsewhere."""

from __future__ import annotations

import hashlib
import json
import os
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.runtime.conftest import replace_file, seal

EXECUTED = "executed"
"""What code in an artifact would leave beside it."""
PLACES = ("manifest.json", "model.onnx", "golden.npz", "parity.json", "../config.pbtxt")


def outside(folder: Path) -> Path:
    """The folder that nothing may be read from."""
    found = folder.parents[2] / "outside"
    found.mkdir(exist_ok=True)
    return found


def link_out(file: str, folder: Path) -> None:
    target = outside(folder) / "file"
    (folder / file).rename(target)
    (folder / file).symlink_to(target)


def link_to(target: str, file: str, folder: Path) -> None:
    (folder / file).unlink()
    (folder / file).symlink_to(target)


def loop(file: str, folder: Path) -> None:
    link_to(Path(file).name, file, folder)


def pipe(file: str, folder: Path) -> None:
    (folder / file).unlink()
    os.mkfifo(folder / file)


def folder_there(file: str, folder: Path) -> None:
    (folder / file).unlink()
    (folder / file).mkdir()


def local_socket(file: str, folder: Path) -> None:
    (folder / file).unlink()
    before = os.getcwd()
    os.chdir((folder / file).parent)  # a socket's path is at most 107 bytes
    try:
        with socket.socket(socket.AF_UNIX) as unheard:
            unheard.bind(Path(file).name)
    finally:
        os.chdir(before)


def sparse(file: str, folder: Path) -> None:
    os.truncate(folder / file, 1 << 40)


def sparse_and_listed(folder: Path) -> None:
    """A TiB that costs its maker nothing, and hours to whoever hashes it."""
    (folder / "model.pt").write_bytes(b"")
    os.truncate(folder / "model.pt", 1 << 40)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["model.pt"] = {"sha256": "0" * 64, "bytes": 1 << 40}
    seal(folder, manifest)


def many_sparse(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    for i in range(40):
        (folder / f"{i}.pt").write_bytes(b"")
        os.truncate(folder / f"{i}.pt", (1 << 31) - 1)
        manifest["files"][f"{i}.pt"] = {"sha256": "0" * 64, "bytes": (1 << 31) - 1}
    seal(folder, manifest)


def version_link_out(folder: Path) -> None:
    """A version that is a link is as good as what it leads to: the folder is the reader's choice."""
    target = outside(folder) / "1"
    folder.rename(target)
    folder.symlink_to(target)


def version_loop(folder: Path) -> None:
    folder.rename(folder.parent / "gone")
    folder.symlink_to("1")


def unlisted(name: bytes, folder: Path) -> None:
    with open(os.fsencode(folder) + b"/" + name, "wb"):
        pass


def pickle_that_writes(file: str, folder: Path) -> None:
    code = f"cposix\nsystem\n(S'touch {folder.parents[2] / EXECUTED}'\ntR.".encode()
    replace_file(folder, file, code)


def sealed_nothing(file: str, folder: Path) -> None:
    replace_file(folder, file, b"")


def config_sealed(data: bytes, folder: Path) -> None:
    (folder.parent / "config.pbtxt").write_bytes(data)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["config_sha256"] = hashlib.sha256(data).hexdigest()
    seal(folder, manifest)


def parity(data: bytes, folder: Path) -> None:
    replace_file(folder, "parity.json", data)


_TOLERANCES = b'{"tolerances": {"rtol": %s, "atol": %s, "channel_scale": {"requests": %s}}}'

CASES: dict[str, Callable[[Path], None]] = {
    **{f"{file}: a link out": partial(link_out, file) for file in PLACES},
    **{f"{file}: a link to nothing": partial(link_to, "nowhere", file) for file in PLACES},
    **{f"{file}: a link to a device": partial(link_to, "/dev/zero", file) for file in PLACES},
    **{f"{file}: a link to the folder": partial(link_to, ".", file) for file in PLACES},
    **{f"{file}: a link to itself": partial(loop, file) for file in PLACES},
    **{f"{file}: a named pipe": partial(pipe, file) for file in PLACES},
    **{f"{file}: a folder": partial(folder_there, file) for file in PLACES},
    **{f"{file}: a socket": partial(local_socket, file) for file in PLACES},
    **{f"{file}: a TiB of holes": partial(sparse, file) for file in PLACES},
    **{f"{file}: nothing, sealed": partial(sealed_nothing, file) for file in PLACES[1:4]},
    **{f"{file}: a pickle": partial(pickle_that_writes, file) for file in PLACES[1:4]},
    "model.pt: a TiB of holes, listed": sparse_and_listed,
    "40 files of 2 GiB of holes, listed": many_sparse,
    "version: a link out": version_link_out,
    "version: a link to itself": version_loop,
    "unlisted: not UTF-8": partial(unlisted, b"\xff\xfe"),
    "unlisted: a line end and an escape": partial(unlisted, b"a\n\x1b[2Jb"),
    "config.pbtxt: not UTF-8, sealed": partial(config_sealed, b"\xff\xfe"),
    "parity.json: deep": partial(parity, b'{"tolerances": ' + b"[" * 100_000),
    "parity.json: deep and closed": partial(parity, b'{"tolerances": ' + b"[" * 450 + b"]" * 450 + b"}"),
    "parity.json: in UTF-16": partial(parity, '{"tolerances": {}}'.encode("utf-16")),
    "parity.json: NaN": partial(parity, _TOLERANCES % (b"NaN", b"0", b"1")),
    "parity.json: infinite": partial(parity, _TOLERANCES % (b"0", b"1e999", b"1")),
    "parity.json: a digit too many": partial(parity, _TOLERANCES % (b"9" * 5000, b"0", b"1")),
    "parity.json: a huge number": partial(parity, _TOLERANCES % (b"0", b"9" * 400, b"1")),
    "parity.json: a key twice": partial(parity, _TOLERANCES % (b"0", b'0, "atol": 1e30', b"1")),
}
