"""Is this machine fit to train and serve? Every part is looked at, whatever is missing; each verdict has a remedy.

What is looked at and what is concluded are kept apart (`doctor_probe.py` and the others), so that the conclusions can
be tested for machines that are not here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from .extras import extra

if TYPE_CHECKING:
    from .doctor_probe import Driver

OK, WARNING, FAILED, SKIPPED = "ok", "warning", "failed", "skipped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One line of the doctor.

    Attributes:
        name: what was looked at.
        status: `ok`, `warning`, `failed`; in a self-test also `skipped`.
        found: what was found.
        remedy: what to do; "" when all is well.
        facts: figures, for the report of a self-test.
    """

    name: str
    status: str
    found: str
    remedy: str = ""
    facts: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain types, ready for JSON."""
        return {key: value for key, value in asdict(self).items() if value not in ("", None)}


def guarded(name: str, look: Callable[[], Iterable[Check]]) -> list[Check]:
    """The checks of one part, or a warning that it could not be looked at: a doctor outlives its patient."""
    try:
        return list(look())
    except Exception as error:  # whatever is broken here is what the doctor was called for
        what = str(error).strip().splitlines()
        text = f"could not be looked at ({type(error).__name__}: {what[0][:200] if what else ''})"
        return [Check(name=name, status=WARNING, found=text, remedy="send this line home")]


def _torch(version: str, driver: Driver) -> list[Check]:
    try:
        part = extra("fcast.doctor", "torch")
    except Exception as error:  # a broken library of torch's may raise anything
        found = f"torch {version} cannot be loaded ({type(error).__name__}: {str(error)[:200]})"
        return [Check(name="torch", status=FAILED, found=found, remedy="install it again, for the CUDA of this driver")]
    return list(part.checks(driver)) if part else []


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """What was found.

    Attributes:
        checks: in the order they are told.
        gpus: indices of the GPUs that a session can run on.
        no_gpu: why there are none; "" otherwise.
    """

    checks: list[Check]
    gpus: list[int]
    no_gpu: str


def examine() -> Examined:
    """Look at everything."""
    from . import doctor_cuda, doctor_system, doctor_wheels
    from .doctor_probe import probe_driver, probe_session

    wheels = doctor_wheels.installed()
    driver, session = probe_driver(), probe_session(wheels.code.libraries if wheels.code else ())
    torch = wheels.versions.get("torch")
    gpus, no_gpu = doctor_cuda.gpus_in_use(driver, session)
    checks = [
        *guarded("system", lambda: doctor_system.checks(wheels)),
        *guarded("packages", lambda: doctor_wheels.checks(wheels, session)),
        *guarded("cuda", lambda: doctor_cuda.checks(wheels, driver, session)),
        *(guarded("torch", lambda: _torch(torch, driver)) if torch else []),
        *guarded("limits", doctor_system.limits),
    ]
    return Examined(checks=checks, gpus=gpus, no_gpu=no_gpu)


def worst(checks: Sequence[Check]) -> str:
    """`failed` if one is, else `warning` if one is, else `ok`."""
    found = {check.status for check in checks}
    return next((status for status in (FAILED, WARNING) if status in found), OK)


def table(checks: Sequence[Check]) -> list[str]:
    """The checks as lines; a remedy stands below its line."""
    width = max((len(check.name) for check in checks), default=0)
    lines = []
    for check in checks:
        lines.append(f"{check.status:<8} {check.name:<{width}}  {check.found}")
        if check.remedy:
            lines.append(f"{'':<8} {'':<{width}}  -> {check.remedy}")
    return lines
