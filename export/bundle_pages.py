"""What stands in a bundle beside wheels and artifacts: install.sh, the facts it reads, a README in two languages."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from export.bundle_sets import WheelSet, dotted

_PAGES = ("README.md", "README.zh.md")
_WHAT = {
    "README.md": {"train": "training and export", "runtime": "the runtime"},
    "README.zh.md": {"train": "训练与导出", "runtime": "运行时"},
}
_NO_CUDA = {"README.md": "without CUDA", "README.zh.md": "不含 CUDA"}
_BESIDE = Path(__file__).parent
_DOCS = Path(__file__).parents[1] / "docs"


def write_pages(
    folder: Path,
    chosen: WheelSet,
    *,
    role: str,
    python: str,
    machine: str,
    version: str,
    date: str,
    needs_bytes: int,
    glibc_minor: int,
    artifacts: Sequence[str],
) -> None:
    """Write install.sh, bundle.env, both README and the project's pages into a bundle.

    Args:
        folder: the bundle.
        chosen: its wheels.
        role: `train` or `runtime`.
        python: `3.11`.
        machine: `x86_64`, as `uname -m` says.
        version: of fcast.
        date: when it was built.
        needs_bytes: disk that the environment takes.
        glibc_minor: N of the glibc 2.N that the wheels need.
        artifacts: names of those that it holds.
    """
    facts = {
        "FCAST": version,
        "ROLE": role,
        "PYTHON_VERSION": python,
        "MACHINE": machine,
        "GLIBC_MINOR": str(glibc_minor),
        "CUDA": chosen.cuda,
        "DRIVER": dotted(chosen.driver),
        "NEEDS_KB": str(-(-needs_bytes // 1000)),
    }
    (folder / "bundle.env").write_text("".join(f"{key}={value}\n" for key, value in facts.items()), encoding="utf-8")
    shutil.copyfile(_BESIDE / "bundle_install.sh", folder / "install.sh")
    shutil.rmtree(folder / "docs", ignore_errors=True)
    if (_DOCS / "offline.md").is_file():  # in a checkout; there are no pages in the wheel
        shutil.copytree(_DOCS, folder / "docs")
    for page in _PAGES:
        text = (_BESIDE / f"bundle_{page.lower()}").read_text(encoding="utf-8")
        kept = {
            "gpu": chosen.cuda != "none",
            "loses": bool(chosen.loses),
            "cuda11": role == "runtime" and bool(chosen.runtime_needs),
            "artifacts": bool(artifacts),
            "bare": not artifacts,
            "train": role == "train",
            "runtime": role == "runtime",
        }
        words = {
            "VERSION": version,
            "WHAT": _WHAT[page][role],
            "DATE": date,
            "PYTHON": python,
            "MACHINE": machine,
            "CUDA": _NO_CUDA[page] if chosen.cuda == "none" else f"CUDA {chosen.cuda}",
            "NEEDS": f"{needs_bytes / 1e9:.1f} GB",
            "DRIVER": dotted(chosen.driver),
            "DEVICE": "cpu" if chosen.cuda == "none" else "auto",
            "LOSES": "\n".join(f"- {one}" for one in chosen.loses),
            "ARTIFACTS": ", ".join(f"`{name}`" for name in artifacts),
            "ARTIFACT": artifacts[0] if artifacts else "",
        }
        (folder / page).write_text(_filled(text, kept, words), encoding="utf-8")


def _filled(text: str, kept: dict[str, bool], words: dict[str, str]) -> str:
    for tag, keep in kept.items():
        text = re.sub(rf"<!-- {tag} -->\n(.*?)<!-- /{tag} -->\n", r"\1" if keep else "", text, flags=re.DOTALL)
    return re.sub(r"@([A-Z]+)@", lambda match: words[match[1]], text)
