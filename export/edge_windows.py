"""Windows that a trace seldom holds and a served model will meet: silence, one giant, one request over and over.

Axes: L context, C channels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

SPIKE = 1e6
_TIMES_S = {"1970-01-01": 0.0, "2100-01-01": 4_102_444_800.0, "the year 5138": 1e11}


def edge_windows(inputs: Mapping[str, np.ndarray], channels: Sequence[str]) -> tuple[list[str], dict[str, np.ndarray]]:
    """Make them in the units and sizes of real windows.

    Args:
        inputs: real windows: `context` (n, L, C) float32 and, of a model with a clock, `time_s` (n,) float64.
        channels: C names.

    Returns:
        The name of each, and the windows under the keys of `inputs`.
    """
    context, time_s = inputs["context"], inputs.get("time_s")
    middle = len(context) // 2
    ordinary = context[middle].astype(np.float64)
    found = list(_contexts(context.astype(np.float64), ordinary, channels))
    times = [0.0 if time_s is None else float(time_s[middle])] * len(found)
    if time_s is not None:
        found += [(f"time {name}", ordinary) for name in _TIMES_S]
        times += _TIMES_S.values()
    edges = {"context": np.stack([window for _, window in found]).astype(np.float32)}
    if time_s is not None:
        edges["time_s"] = np.array(times)
    return [name for name, _ in found], edges


def _contexts(context: np.ndarray, ordinary: np.ndarray, channels: Sequence[str]) -> Iterator[tuple[str, np.ndarray]]:
    """Name and (L, C) values of each."""
    typical, largest, smallest = (f(context, axis=(0, 1)) for f in (np.mean, np.max, np.min))
    silence = np.zeros_like(ordinary)
    yield "all zeros", silence
    for name, row in (
        ("a thousandth of the mean", typical / 1000),
        ("the mean", typical),
        ("a thousand times the mean", typical * 1000),
        ("the largest seen", largest),
        ("the smallest seen", smallest),
        ("one step repeated", ordinary[-1]),  # of single requests: the same request, always after the same time
    ):
        yield f"constant, {name}", np.broadcast_to(row, ordinary.shape)
    yield "the largest and the smallest in turn", np.where(np.arange(len(ordinary))[:, None] % 2, largest, smallest)
    for where, step in (("last", -1), ("middle", len(ordinary) // 2)):
        alone = silence.copy()
        alone[step] = typical
        yield f"silence but for the {where} step", alone
        for channel, name in enumerate(channels):
            spiked = ordinary.copy()
            spiked[step, channel] = SPIKE
            yield f"1e6 {name} in the {where} step", spiked


def in_batches(real: np.ndarray, edges: np.ndarray, batch: int) -> list[np.ndarray]:
    """Indices of windows in batches of one size, the edge windows spread evenly among the real ones.

    Args:
        real: (n,) indices.
        edges: (m,) indices.
        batch: windows in each; the first ones come again to fill the last batch.
    """
    place = np.concatenate([(np.arange(len(part)) + 0.5) / len(part) for part in (real, edges)])
    order = np.concatenate([real, edges])[np.argsort(place, kind="stable")]
    return list(np.resize(order, (-(-len(order) // batch), batch)))
