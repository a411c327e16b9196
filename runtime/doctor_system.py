"""Python, the system, and the limits that a night of training runs into."""

from __future__ import annotations

import datetime
import locale
import os
import platform
import shutil
import sys
import time
from pathlib import Path

from .doctor import FAILED, OK, WARNING, Check
from .doctor_wheels import Wheels

_GIB = 1 << 30
_PYTHON = (3, 10)
_DISK_FAILED, _DISK_WARNING = _GIB // 4, 5 * _GIB
_SHARED_WARNING = _GIB
_FILES_WARNING = 1024


def checks(wheels: Wheels) -> list[Check]:
    """Python, platform and glibc."""
    return [
        python(sys.version_info[:2], platform.python_version(), sys.executable),
        machine(platform.system(), platform.machine(), platform.platform()),
        glibc(platform.libc_ver(), wheels.glibc),
    ]


def python(version: tuple[int, ...], text: str, where: str) -> Check:
    """Whether Python is new enough."""
    if version < _PYTHON:
        remedy = f"make the environment with Python {'.'.join(map(str, _PYTHON))} or newer"
        return Check(name="python", status=FAILED, found=f"{text} in {where}", remedy=remedy)
    return Check(name="python", status=OK, found=f"{text} in {where}")


def machine(system: str, processor: str, text: str) -> Check:
    """Whether it is a system that fcast is tested on."""
    if (system, processor) != ("Linux", "x86_64"):
        remedy = "fcast is tested on Linux x86_64 alone: read the self-test's report before relying on this"
        return Check(name="platform", status=WARNING, found=f"{text} ({processor})", remedy=remedy)
    return Check(name="platform", status=OK, found=text)


def glibc(found: tuple[str, str], asked: dict[str, tuple[int, int]]) -> Check:
    """Whether the C library is as new as the wheels ask."""
    kind, text = found
    newest = max(asked, key=lambda name: asked[name], default="")
    wants = f"{newest} asks for glibc {'.'.join(map(str, asked[newest]))}" if newest else "no wheel asks for one"
    if kind != "glibc":
        said = f"{kind} {text}".strip() or "unknown"
        remedy = "take a system with glibc; the wheels' libraries do not load elsewhere"
        return Check(name="glibc", status=WARNING, found=f"no glibc but {said}; {wants}", remedy=remedy)
    version = tuple(int(part) for part in text.split(".")[:2] if part.isdecimal())
    if newest and version < asked[newest]:
        remedy = f"take a newer system, or an older {newest}"
        return Check(name="glibc", status=FAILED, found=f"{text}, while {wants}", remedy=remedy)
    return Check(name="glibc", status=OK, found=f"{text}; {wants}")


def limits() -> list[Check]:
    """Disk, shared memory, open files, locale and clock."""
    here, shared = Path.cwd(), Path("/dev/shm")
    made_s = Path(__file__).stat().st_mtime
    return [
        disk(here, shutil.disk_usage(here).free),
        *([shared_memory(shutil.disk_usage(shared).total)] if shared.is_dir() else []),
        *open_files(),
        encoding(locale.getpreferredencoding(False), os.environ.get("LC_ALL") or os.environ.get("LANG") or "unset"),
        clock(time.time(), made_s),
    ]


def disk(where: Path, free_bytes: int) -> Check:
    """Whether there is room for checkpoints and artifacts."""
    found = f"{free_bytes / _GIB:.1f} GiB free in {where}"
    if free_bytes < _DISK_WARNING:
        status = FAILED if free_bytes < _DISK_FAILED else WARNING
        return Check(name="disk", status=status, found=found, remedy="make room, or work in another folder")
    return Check(name="disk", status=OK, found=found)


def shared_memory(total_bytes: int) -> Check:
    """Whether processes that train together can talk."""
    found = f"/dev/shm has {total_bytes / _GIB:.2f} GiB"
    if total_bytes < _SHARED_WARNING:
        remedy = "training on several GPUs needs more: docker run --shm-size=8g, or --ipc=host"
        return Check(name="shared memory", status=WARNING, found=found, remedy=remedy)
    return Check(name="shared memory", status=OK, found=found)


def open_files() -> list[Check]:
    """Whether a server may hold many connections and a training many files."""
    try:
        import resource
    except ImportError:  # no limits of this kind
        return []
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = soft == resource.RLIM_INFINITY
    found = "no limit" if unlimited else f"{soft} open files (at most {'any' if hard == -1 else hard})"
    if not unlimited and soft < _FILES_WARNING:
        remedy = f"ulimit -n {_FILES_WARNING}"
        return [Check(name="open files", status=WARNING, found=found, remedy=remedy)]
    return [Check(name="open files", status=OK, found=found)]


def encoding(name: str, setting: str) -> Check:
    """Whether text that is printed can be any text."""
    found = f"{name} (LANG {setting})"
    if name.replace("-", "").replace("_", "").lower() not in ("utf8", "cp65001"):
        return Check(name="locale", status=WARNING, found=found, remedy="export LANG=C.UTF-8")
    return Check(name="locale", status=OK, found=found)


def clock(now_s: float, installed_s: float) -> Check:
    """Whether the clock may be right: it cannot be before fcast was installed."""
    found = datetime.datetime.fromtimestamp(now_s, datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    if now_s < installed_s - 86400:
        remedy = "set the clock (date -s, or NTP); times of traces and of runs are read from it"
        return Check(name="clock", status=WARNING, found=f"{found}, before fcast was installed", remedy=remedy)
    return Check(name="clock", status=OK, found=found)
