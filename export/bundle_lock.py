"""What a bundle installs: uv resolves for the machine that will install it, not for the one at hand.

pip's own resolver evaluates environment markers for the interpreter that runs it, whatever `--platform` says: on a Mac,
or under another Python, the lock would lack packages. uv gets the indexes that pip is set to: one place to set them.
"""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from export.errors import ExportError

PLATFORMS = {"linux_x86_64": "x86_64-manylinux_2_28", "linux_aarch64": "aarch64-manylinux_2_34"}
_FLAGS = {
    "index-url": "--default-index",
    "extra-index-url": "--index",
    "find-links": "--find-links",
    "constraint": "--constraint",
    "trusted-host": "--allow-insecure-host",
}


@dataclass(frozen=True, slots=True)
class Wheel:
    """A wheel that was chosen, and where it lies."""

    name: str
    version: str
    file: str
    url: str
    sha256: str
    size_bytes: int
    """0 where the index does not say."""

    @property
    def tags(self) -> tuple[str, str, str]:
        """Python, ABI and platform tags of the file name."""
        python, abi, platform = self.file.removesuffix(".whl").split("-")[-3:]
        return python, abi, platform

    @property
    def glibc_minor(self) -> int:
        """N of the glibc 2.N that it needs; 0 where it needs none."""
        platforms = self.tags[2].split(".")
        found = [int(n) for platform in platforms for n in re.findall(r"^manylinux_2_(\d+)_", platform)]
        old = {"manylinux1": 5, "manylinux2010": 12, "manylinux2014": 17}
        found += [old[name] for platform in platforms if (name := platform.partition("_")[0]) in old]
        return min(found, default=0)


def lock(
    project: Path, extras: str, more: Sequence[str], constraints: Sequence[str], *, python: str, platform: str
) -> list[Wheel]:
    """Every wheel that `project[extras]` and `more` need on a machine, its own left out.

    Args:
        project: fcast's wheel.
        extras: its extras, `export,gpu`.
        more: further requirements.
        constraints: bounds on what is taken.
        python: `3.11`.
        platform: a key of PLATFORMS.

    Raises:
        ExportError: uv is not installed, or nothing fits; its own words are in the text.
    """
    with tempfile.TemporaryDirectory(prefix="fcast-lock-") as folder:
        wanted, bounds, locked = (Path(folder) / name for name in ("wanted.in", "bounds.txt", "pylock.toml"))
        wanted.write_text(
            "\n".join([f"fcast[{extras}] @ {project.absolute().as_uri()}", *more]) + "\n", encoding="utf-8"
        )
        bounds.write_text("\n".join(constraints) + "\n", encoding="utf-8")
        arguments = [
            *(_find_uv(), "pip", "compile", str(wanted), "--constraint", str(bounds), "--output-file", str(locked)),
            *("--format", "pylock.toml", "--only-binary", ":all:", "--python-version", python, "--quiet"),
            *("--python-platform", PLATFORMS[platform], "--index-strategy", "unsafe-best-match"),
            *("--python", sys.executable, "--no-python-downloads", *_as_pip_is_set()),
        ]
        done = subprocess.run(arguments, capture_output=True, text=True, check=False)
        if done.returncode:
            said = _one_line(done.stderr)
            lacking = "give pip an index that has them (PIP_EXTRA_INDEX_URL), or choose another --python or --cuda"
            remedy = "check the network and pip's settings" if "ailed to fetch" in said else lacking
            raise ExportError(f"requirements: expected wheels for Python {python} on {platform}, got: {said}; {remedy}")
        return _read(locked)


def _find_uv() -> str:
    try:
        from uv import find_uv_bin

        return str(find_uv_bin())
    except (ImportError, FileNotFoundError):
        found = shutil.which("uv")
    if found is None:
        raise ExportError("uv: expected it installed, got none; pip install 'fcast[bundle]'")
    return found


def pip_settings() -> dict[str, str]:
    """pip's settings by option, its configuration files under its environment variables.

    Raises:
        ExportError: pip is not installed.
    """
    done = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ExportError(f"pip: expected it installed, got {_one_line(done.stderr)}; python -m ensurepip")
    scopes: dict[str, dict[str, str]] = {}
    for line in done.stdout.splitlines():
        match = re.fullmatch(r"(global|download|:env:)\.([\w-]+)=(.+)", line.strip())
        if match:
            scopes.setdefault(match[1], {})[match[2]] = str(ast.literal_eval(match[3]))
    return scopes.get("global", {}) | scopes.get("download", {}) | scopes.get(":env:", {})


def _as_pip_is_set() -> list[str]:
    settings = pip_settings()
    flags = [part for key, flag in _FLAGS.items() for value in settings.get(key, "").split() for part in (flag, value)]
    return [*flags, "--no-index"] if settings.get("no-index", "").lower() in ("1", "true", "yes", "on") else flags


def _read(path: Path) -> list[Wheel]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    packages = tomllib.loads(path.read_text(encoding="utf-8"))["packages"]
    return sorted(
        (_wheel(one, path.parent) for one in packages if one["name"] != "fcast"), key=lambda wheel: wheel.name
    )


def _wheel(package: dict[str, Any], beside: Path) -> Wheel:
    entry = package["wheels"][0]
    url = entry.get("url") or (beside / entry["path"]).resolve().as_uri()
    local = Path(unquote(urlsplit(url).path))
    size = entry.get("size") or (local.stat().st_size if url.startswith("file:") else 0)
    return Wheel(package["name"], package["version"], local.name, url, entry["hashes"]["sha256"], size)


def _one_line(text: str) -> str:
    """A tool's complaint without its line breaks and decoration."""
    kept = [line.strip(" ×╰─▶│├→") for line in text.splitlines() if not line.lower().startswith("warning")]
    return re.sub(r"\s+", " ", " ".join(kept)).removeprefix("error: ").strip()
