"""What failures are made from: a trace, a trained run and an artifact, whole, to be copied and spoilt."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from functools import cached_property
from pathlib import Path


def command(name: str) -> str:
    """The installed command.

    Raises:
        FileNotFoundError: it is not beside this interpreter.
    """
    path = Path(sys.executable).with_name(name)
    if not path.exists():
        raise FileNotFoundError(f"{name} is not installed")
    return str(path)


class Kit:
    """Makes its parts when they are first asked for.

    Attributes:
        place: the folder that commands run in; its path is left out of what is shown.
    """

    def __init__(self, place: Path) -> None:
        self.place = place

    def write(self, name: str, text: str) -> str:
        """A file in the place; returns its name."""
        path = self.place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return name

    def spoilt(self, source: str, name: str, file: str, change: slice) -> str:
        """A copy of a folder in which the bytes of `change` in one file are gone or flipped.

        Args:
            source: the whole folder.
            name: the copy's.
            file: a pattern for the file.
            change: of one byte: it is flipped; of more: they are cut out.
        """
        target = self.place / name
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(self.place / source, target)
        path = sorted(target.rglob(file))[-1]
        data = bytearray(path.read_bytes())
        at = range(*change.indices(len(data)))
        if len(at) == 1:
            data[at[0]] ^= 1
        else:
            del data[change]
        path.write_bytes(data)
        return name

    def folder(self, name: str) -> Path:
        """An empty folder."""
        path = self.place / name
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
        return path

    @cached_property
    def trace(self) -> str:
        """A trace of 0.3 days."""
        self._run("fcast-trace", "synth", "trace.csv", "--days", "0.3", "--rate", "0.3", "--seed", "1")
        return "trace.csv"

    @property
    def training(self) -> list[str]:
        """A short training; `--model` and what is to go wrong follow."""
        shape = ["--series", "load", "--bin", "30", "--context", "12", "--horizon", "4", "--device", "cpu"]
        return [command("fcast-train"), "--trace", self.trace, *shape]

    @cached_property
    def run(self) -> str:
        """The folder of a run."""
        self._run(*self.training, "--model", "dlinear", "--epochs", "1", "--out", "runs")
        return "runs/dlinear"

    @cached_property
    def artifact(self) -> str:
        """An artifact."""
        self._run("fcast-export", self.run, "--out", "artifacts")
        return "artifacts/dlinear"

    @cached_property
    def bundle(self) -> str:
        """A bundle without wheels: what install.sh looks at first."""
        from export.bundle import Plan, build_bundle
        from export.bundle_sets import CPU

        project = self.place / "project" / "fcast-0.1-py3-none-any.whl"
        project.parent.mkdir()
        with zipfile.ZipFile(project, "w") as archive:
            archive.writestr("fcast-0.1.dist-info/METADATA", "Metadata-Version: 2.1\nName: fcast\nVersion: 0.1\n")
        version = f"{sys.version_info[0]}.{sys.version_info[1]}"
        plan = Plan(chosen=CPU, role="train", python=version, platform="linux_x86_64", wheels=(), extras="cpu")
        build_bundle(plan, self.place / "bundle", project=project, on_wheel=print)
        return "bundle"

    def _run(self, *words: str) -> None:
        words = (command(words[0]) if "/" not in words[0] else words[0], *words[1:])
        done = subprocess.run(words, cwd=self.place, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{words}: {done.stderr}")
