"""What a bundle installs: uv resolves for the machine that will install it, not for the one at hand.

pip's own resolver evaluates environment markers for the interpreter that runs it, whatever `--platform` says: on a Mac,
or under another Python, the lock would lack packages. uv gets the indexes that pip is set to: one place to set them.
"""

from __future__ import annotations

import ast
import hashlib
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

PLATFORMS = {"linux_x86_64": 28, "linux_aarch64": 34}
"""N of the newest glibc 2.N that wheels may ask for, by the kind of machine."""
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


def file_sha256(path: Path) -> str:
    """Hash a file of any size."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


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
            *("--python-platform", _as_uv_says(platform), "--index-strategy", "unsafe-best-match"),
            *("--python", sys.executable, "--no-python-downloads", *_as_pip_is_set()),
        ]
        done = subprocess.run(arguments, capture_output=True, text=True, check=False)
        if done.returncode:
            said = _one_line(done.stderr)
            lacking = "give pip an index that has them (PIP_EXTRA_INDEX_URL), or choose another --python or --cuda"
            remedy = "check the network and pip's settings" if "ailed to fetch" in said else lacking
            raise ExportError(f"requirements: expected wheels for Python {python} on {platform}, got: {said}; {remedy}")
        return read_lock(locked, python=python, platform=platform)


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


def _as_uv_says(platform: str) -> str:
    return f"{platform.removeprefix('linux_')}-manylinux_2_{PLATFORMS[platform]}"


def read_lock(path: Path, *, python: str, platform: str) -> list[Wheel]:
    """The wheels of a pylock.toml that a machine would take, fcast's own left out.

    Raises:
        ExportError: a package has none for it.
    """
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    packages = tomllib.loads(path.read_text(encoding="utf-8"))["packages"]
    try:
        from export.bundle_tags import best_file, ranked_tags
    except ModuleNotFoundError as error:
        raise ExportError(f"{error.name}: expected it installed, got none; pip install 'fcast[bundle]'") from None
    ranks = ranked_tags(python, platform.removeprefix("linux_"), PLATFORMS[platform])
    found = []
    for package in packages:
        if package["name"] != "fcast":
            files = {_url(one, path.parent): one for one in package.get("wheels", ())}
            url = best_file(list(files), ranks)
            found.append(_wheel(package, url, files))
    return sorted(found, key=lambda wheel: wheel.name)


def _url(entry: dict[str, Any], beside: Path) -> str:
    return str(entry.get("url") or (beside / entry["path"]).resolve().as_uri())


def _wheel(package: dict[str, Any], url: str | None, files: dict[str, dict[str, Any]]) -> Wheel:
    name, version = package["name"], package["version"]
    if url is None:
        raise ExportError(
            f"{name} {version}: expected a wheel for that machine, got none; choose another --python or --platform"
        )
    file = Path(unquote(urlsplit(url).path))
    if url.startswith("file:"):
        return Wheel(name, version, file.name, url, file_sha256(file), file.stat().st_size)
    digest = files[url].get("hashes", {}).get("sha256")
    if digest is None:
        raise ExportError(f"{url}: expected an index that gives its sha256, got none; use another index")
    return Wheel(name, version, file.name, url, digest, files[url].get("size", 0))


def _one_line(text: str) -> str:
    """A tool's complaint without its line breaks and decoration."""
    kept = [line.strip(" ×╰─▶│├→") for line in text.splitlines() if not line.lower().startswith("warning")]
    return re.sub(r"\s+", " ", " ".join(kept)).removeprefix("error: ").strip()
