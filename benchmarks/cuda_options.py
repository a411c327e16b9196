"""Does an onnxruntime-gpu wheel know every option that the runtime gives it? `python -m benchmarks.cuda_options WHEEL`.

No GPU is needed: names stand in the wheel's libraries as they are. pip download --no-deps onnxruntime-gpu gets one.
"""

from __future__ import annotations

import re
import sys
import tempfile
import zipfile
from pathlib import Path

import click

from runtime.cuda import GRAPH_ID
from runtime.cuda_options import CudaOptions, provider_options
from runtime.doctor_wheels import read_provider

_PROVIDER = "libonnxruntime_providers_cuda.so"
_PYTHON = re.compile(r"onnxruntime_pybind11_state[^/]*\.so$")


def option_names() -> dict[str, tuple[str, ...]]:
    """Kind of library -> names of options that must stand in it."""
    every = provider_options(0, CudaOptions(graph=True, memory_limit_bytes=1, stream=1))
    return {"provider": tuple(every), "python": (GRAPH_ID,)}


@click.command()
@click.argument("wheel", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def main(wheel: Path) -> None:
    """Look for each option in a WHEEL; exit 1 when one is unknown to it."""
    names = option_names()
    with zipfile.ZipFile(wheel) as packed, tempfile.TemporaryDirectory() as folder:
        provider = Path(packed.extract(f"onnxruntime/capi/{_PROVIDER}", folder))
        python = next(packed.read(name) for name in packed.namelist() if _PYTHON.search(name))
        found = read_provider(provider)
        content = {"provider": provider.read_bytes(), "python": python}
    unknown = []
    for kind, wanted in names.items():
        for name in wanted:
            there = name.encode() + b"\0" in content[kind]  # a linker lets names share their ends
            click.echo(f"{'known' if there else 'UNKNOWN':<8}{name}")
            unknown += [] if there else [name]
    click.echo(f"{wheel.name}: CUDA {found.cuda}; opens {', '.join(found.libraries)}")
    said = f", and newer ones from {found.ptx[0]}.{found.ptx[1]} on" if found.ptx else ", no other"
    click.echo(f"code for compute capability {', '.join(f'{a}.{b}' for a, b in found.codes)}{said}")
    if unknown:
        sys.exit(1)


if __name__ == "__main__":
    main()
