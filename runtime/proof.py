"""parity.json: the tolerance that an export was proven with."""

from __future__ import annotations

from dataclasses import dataclass, replace

from .artifact import Artifact
from .fields import Fields, read_object
from .inputs import number

PARITY = "parity.json"
_MAX_BYTES = 4 << 20
_MAX_SCALE = 1e39


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """How far a forecast may be from its reference: atol * scale + rtol * |reference|."""

    rtol: float
    atol: float
    """In units of a channel's scale."""
    scale: tuple[float, ...]
    """(C,) raw units."""

    def replaced(self, *, rtol: float | None, atol: float | None) -> Tolerance:
        """The same with another `rtol` or `atol` where one is given.

        Raises:
            InputError: one is negative or not finite.
        """
        return replace(
            self,
            rtol=self.rtol if rtol is None else number("rtol", rtol),
            atol=self.atol if atol is None else number("atol", atol),
        )


def read_tolerance(artifact: Artifact) -> Tolerance:
    """Read the tolerance of an artifact's proof.

    Raises:
        ArtifactError: missing, altered, too large, or not as docs/artifact.md has it.
    """
    where = str(artifact.folder / PARITY)
    report = read_object(artifact.read(PARITY, max_bytes=_MAX_BYTES), where=where)
    said = Fields(Fields(report, where).mapping("tolerances"), where)
    scale = Fields(said.mapping("channel_scale"), where)
    return Tolerance(
        rtol=said.number("rtol", low=0.0, high=_MAX_SCALE),
        atol=said.number("atol", low=0.0, high=_MAX_SCALE),
        scale=tuple(scale.number(name, low=1e-45, high=_MAX_SCALE) for name in artifact.manifest.channels),
    )
