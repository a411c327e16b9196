"""Which wheels of torch and onnxruntime-gpu a driver can run: one table, with its sources.

Driver and CUDA: NVIDIA, "CUDA Compatibility", minor version compatibility: a program built with any 11.x, 12.x or 13.x
runs from drivers 450.80.02, 525.60.13 and 580.65.06 on; newer drivers run older CUDA.
onnxruntime-gpu and CUDA: ONNX Runtime, "CUDA Execution Provider", requirements: 1.18 is CUDA 11.8 with cuDNN 8, from
1.19 CUDA 12 with cuDNN 9; the wheels' own metadata: CUDA 12 up to 1.26, CUDA 13 from 1.28; 1.27 asks for packages that
are not published. The extras `cuda` and `cudnn`, and `preload_dlls`, begin with 1.21.
torch and CUDA: the wheels' own metadata on the public index: 2.6 is CUDA 12.4, 2.7 is 12.6, 2.8 to 2.10 are 12.8, 2.11
to 2.14 are 13.0, 2.15 is 13.2. CUDA 11.8 was built up to 2.7, for PyTorch's own index only (pytorch, RELEASE.md).
GPUs: the code in the CUDA libraries of the wheels: torch 2.10 from compute capability 7.0, 2.7 from 5.0,
onnxruntime-gpu 1.26 from 6.0, 1.18 from 5.2. 13.0 builds of torch begin with 7.5 (pytorch, RELEASE.md, CUDA support
matrix of 2.11), 11.8 ones with 3.7 (the architectures of the 2.7.0 packages). The guide asks for 6.0.
Opsets: a graph of one node was loaded with the lowest onnxruntime of each row.
torch stays below 2.14 since the project's tests run with 2.13.0; 2.6.0 was tried once, those between were not.

Metadata and code were read, and the opsets were tried, on 2026-11-26. No row has been run on a GPU.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from training.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class WheelSet:
    """Wheels that fit each other and a driver."""

    cuda: str
    """Major version of CUDA, or `none`."""
    driver: tuple[int, ...] = ()
    """Lowest NVIDIA driver."""
    capability: float = 0.0
    """Lowest compute capability that torch has kernels for."""
    pythons: tuple[int, int] = (10, 14)
    """Lowest and highest minor version of Python 3."""
    torch: str = ">=2.6,<2.14"
    onnxruntime: str = ">=1.18,<1.33"
    opset: int = 21
    """Highest opset that the lowest of these onnxruntime loads."""
    runtime_needs: tuple[str, ...] = ()
    """Further requirements of the role runtime."""
    torch_index: str = ""
    """The index that alone has this torch, in words."""
    train_on_cpu_runtime: bool = False
    """Whether onnxruntime in the role train is the CPU's: its cuDNN is another than torch's."""
    loses: tuple[str, ...] = ()
    """What a machine has to do without."""


SETS = (
    WheelSet(
        cuda="13",
        driver=(580, 65, 6),
        capability=7.5,
        pythons=(11, 14),
        torch=">=2.11,<2.14",
        onnxruntime=">=1.28,<1.32",
        opset=26,
        loses=(
            "GPUs below compute capability 7.5 (V100, P100): build with --cuda 12 and --compute-capability 7.0 or 6.0",
        ),
    ),
    WheelSet(
        cuda="12",
        driver=(525, 60, 13),
        capability=7.0,
        torch=">=2.9,<2.11",
        onnxruntime=">=1.21,<1.27",
        opset=22,
        loses=(
            "torch stops at 2.10 and onnxruntime-gpu at 1.26, the last public builds for CUDA 12: no later fixes",
            "on Python 3.10 onnxruntime-gpu stops at 1.23",
            "GPUs below compute capability 7.0 (P100): build with --compute-capability 6.0",
        ),
    ),
    WheelSet(
        cuda="12",
        driver=(525, 60, 13),
        capability=6.0,
        pythons=(10, 13),
        torch=">=2.7,<2.8",
        onnxruntime=">=1.21,<1.27",
        opset=22,
        loses=(
            "torch stops at 2.7 (CUDA 12.6), the last public build for these GPUs, and onnxruntime-gpu at 1.26",
            "no bfloat16: AMP uses float16",
        ),
    ),
    WheelSet(
        cuda="11",
        driver=(450, 80, 2),
        capability=6.0,
        pythons=(10, 12),
        torch=">=2.6,<2.8",
        onnxruntime=">=1.18,<1.19",
        runtime_needs=(
            "numpy<2",
            "nvidia-cuda-runtime-cu11>=11.8,<12",
            "nvidia-cuda-nvrtc-cu11>=11.8,<12",
            "nvidia-cublas-cu11>=11.11,<12",
            "nvidia-cufft-cu11>=10.9,<11",
            "nvidia-curand-cu11>=10.3,<11",
            "nvidia-cudnn-cu11>=8.9,<9",
        ),
        torch_index="PyTorch's index for CUDA 11.8",
        train_on_cpu_runtime=True,
        loses=(
            "torch stops at 2.7 and onnxruntime-gpu at 1.18: opsets up to 21, no later fixes",
            "training and serving on the GPU need an environment each: torch brings cuDNN 9, onnxruntime-gpu 1.18 "
            "wants cuDNN 8; the role train has onnxruntime for the CPU",
            "onnxruntime-gpu 1.18 does not find the CUDA libraries by itself: the bundle's README sets LD_LIBRARY_PATH",
        ),
    ),
)

CPU = WheelSet(cuda="none")


def parse_version(text: str, *, option: str) -> tuple[int, ...]:
    """`535.183.01` as numbers.

    Raises:
        ConfigError: it is no such version.
    """
    if not re.fullmatch(r"\d{1,5}(\.\d{1,5}){0,3}", text):
        raise ConfigError(f"{option}: expected a version such as 535 or 535.183.01, got '{text}'; see nvidia-smi")
    return tuple(map(int, text.split(".")))


def choose_set(*, cuda: str | None, driver: str | None, python: str, capability: float | None = None) -> WheelSet:
    """The newest set for a machine.

    Args:
        cuda: `none`, `11`, `12`, `13`, or None to go by the driver.
        driver: version of the NVIDIA driver, as much of it as is known, or None.
        python: `3.11`.
        capability: compute capability of the GPU; None takes it for a newer one.

    Raises:
        ConfigError: both or neither of `cuda` and `driver`, or nothing fits.
    """
    if (cuda is None) == (driver is None):
        raise ConfigError("--cuda, --driver: expected one of the two; nvidia-smi shows the driver's version")
    minor = _minor(python)
    if cuda == "none":
        return _for_python((CPU,), minor, python)
    if driver is None:
        fits = tuple(one for one in SETS if one.cuda == cuda)
    else:
        known = parse_version(driver, option="--driver")
        fits = tuple(one for one in SETS if known >= one.driver[: len(known)])
        if not fits:
            raise ConfigError(
                f"--driver: expected {dotted(SETS[-1].driver)} or newer, which CUDA 11 needs, got {driver}; update the "
                "driver, or build with --cuda none"
            )
    able = tuple(one for one in fits if capability is None or one.capability <= capability)
    if capability is not None and not able:
        lowest = min(one.capability for one in fits)
        raise ConfigError(
            f"--compute-capability: expected {lowest} or higher, for which torch has kernels, got {capability}; "
            + ("build with --cuda 12, or --cuda none" if capability >= 6 else "build with --cuda none")
        )
    return _for_python(able, minor, python)


def _for_python(sets: tuple[WheelSet, ...], minor: int, python: str) -> WheelSet:
    for one in sets:
        if one.pythons[0] <= minor <= one.pythons[1]:
            return one
    low, high = sets[0].pythons
    below = (one for one in SETS if one.cuda < sets[0].cuda and one.pythons[0] <= minor <= one.pythons[1])
    older = next((one.cuda for one in below), "none")
    remedy = "use one of these" + (f", or --cuda {older}" if sets[0].cuda != "none" else "")
    raise ConfigError(
        f"--python: expected 3.{low} to 3.{high}, which wheels for CUDA {sets[0].cuda} are built for, got {python}; "
        f"{remedy}"
    )


def _minor(python: str) -> int:
    if not re.fullmatch(r"3\.\d{1,2}", python):
        raise ConfigError(f"--python: expected a version such as 3.11, got '{python}'; run python3 --version there")
    return int(python[2:])


def dotted(version: tuple[int, ...]) -> str:
    """A driver's version as NVIDIA writes it: 450.80.02."""
    return ".".join(f"{part:02d}" for part in version)


def requirements(chosen: WheelSet, role: str) -> tuple[str, list[str], list[str]]:
    """The extras of fcast, further requirements, and the constraints of a set in a role."""
    gpu = chosen.cuda != "none" and not (role == "train" and chosen.train_on_cpu_runtime)
    name = "onnxruntime-gpu" if gpu else "onnxruntime"
    allowed = chosen.onnxruntime if gpu else CPU.onnxruntime
    extras = ("export," if role == "train" else "") + ("gpu" if gpu else "cpu")
    more = list(chosen.runtime_needs) if role == "runtime" else []
    return extras, ["pip>=24", *more], [f"{name}{allowed}"] + ([f"torch{chosen.torch}"] if role == "train" else [])
