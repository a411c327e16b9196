"""Publish without end in a child process, and kill -9 it at random moments: `... OUT KILLS`, prints what was seen.

A process of its own, without threads, so that it may fork for each kill: what publishing needs is imported once.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from itertools import count
from pathlib import Path
from typing import NoReturn

from export.manifest import manifest_bytes
from export.publish import publish, staging, write_file
from runtime.artifact import open_artifact

SOURCE = Path(__file__).parents[1] / "runtime/artifacts/load"
VERSIONED = ("version", "config_sha256", "files", "self_sha256")


def publish_whole(out: Path, name: str, nonce: str) -> None:
    """One artifact that is good in every respect, and like no other."""
    config = (SOURCE / "config.pbtxt").read_text()
    raw = json.loads((SOURCE / "1/manifest.json").read_bytes())
    facts = {key: value for key, value in raw.items() if key not in VERSIONED} | {"name": name, "nonce": nonce}
    with staging(out) as stage:
        staged = stage / "version"
        for file in raw["files"]:
            write_file(staged / file, (SOURCE / "1" / file).read_bytes())
        write_file(staged / "model.pt", nonce.encode() * 20_000)  # so that writing takes its share of the time
        files = [*raw["files"], "model.pt"]

        def seal(folder: Path, version: int, beside: bytes) -> None:
            content = manifest_bytes(facts, version=version, folder=folder, files=files, config=beside)
            write_file(folder / "manifest.json", content)

        publish(staged, out=out, name=name, config=config, seal=seal)


def whole_versions(out: Path) -> dict[str, str]:
    """Each version that a reader can see -> its nonce; all must be complete."""
    found = {}
    for folder in out.glob("[!.]*/*"):
        if not folder.is_dir():
            assert folder.name in ("config.pbtxt", ".highest_version"), folder
            continue
        artifact = open_artifact(folder)
        assert artifact.manifest.version == int(folder.name), folder
        for file in artifact.manifest.files:
            artifact.check(file)
        artifact.check_config()
        assert artifact.unlisted() == [], folder
        found[f"{folder.parent.name}/{folder.name}"] = artifact.manifest.raw["nonce"]
    return found


def publish_until_killed(out: Path, name: str, kill: int, ready: int) -> NoReturn:
    os.write(ready, b".")
    for i in count():
        publish_whole(out, name, f"{kill:04}-{i:04}")


def main(out: Path, kills: int) -> None:
    rng = random.Random(0)
    began = time.perf_counter()
    for i in range(5):
        publish_whole(out, "warm", f"{i}")
    each_s = (time.perf_counter() - began) / 5

    seen = whole_versions(out)
    interrupted = 0
    for kill in range(kills):
        listen, ready = os.pipe()
        child = os.fork()
        if child == 0:  # every third kill may hit the first version of a name, which brings config.pbtxt
            publish_until_killed(out, f"name{kill // 3}", kill, ready)
        os.read(listen, 1)
        time.sleep(rng.uniform(0, 3 * each_s))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        assert os.WTERMSIG(status) == signal.SIGKILL, "the child must not end by itself"
        os.close(listen)
        os.close(ready)
        left = list(out.glob(".staging-*"))
        assert len(left) <= 1, "the next publisher sweeps what the last one left"
        interrupted += bool(left)
        now = whole_versions(out)
        assert {version: now.get(version) for version in seen} == seen, "a version was changed or used twice"
        seen = now
    publish_whole(out, "last", "last")
    assert list(out.glob(".staging-*")) == []
    print(json.dumps({"kills": kills, "interrupted": interrupted, "versions": sorted(whole_versions(out))}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
