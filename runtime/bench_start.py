"""Cold start: from making a process to its first forecast, and the memory it then takes, beside a bare script.

Both subjects load the same model.onnx and run it once on the same window, each time in a fresh process, in turn.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from .artifact import Artifact
from .device import NO_TELEMETRY

# argv: folder of this package's parent, name of the package, artifact's folder, L, C, whether it takes time
_HEAD = """
import sys
root, package, folder, steps, channels, clock = sys.argv[1:]
shape, clock = (int(steps), int(channels)), clock == "1"
"""
_BARE = """
import numpy as np
import onnxruntime as ort
options = ort.SessionOptions()
options.intra_op_num_threads = 1
session = ort.InferenceSession(folder + "/model.onnx", options, providers=["CPUExecutionProvider"])
feed = {"context": np.full((1, *shape), 3, dtype=np.float32)}
if clock:
    feed["time_s"] = np.array([1.7e9])
session.run(["forecast"], feed)
"""
_RUNTIME = """
import importlib
sys.path.insert(0, root)
predictor = importlib.import_module(package).Predictor(folder, device="cpu")
import numpy as np
predictor.predict(np.full(shape, 3, dtype=np.float32), 1.7e9 if clock else None)
"""
_TAIL = """
import time
done_ns = time.monotonic_ns()
try:
    status = dict(line.split(":", 1) for line in open("/proc/self/status"))
    print(done_ns, *(int(status[key].split()[0]) for key in ("VmRSS", "VmHWM")))
except OSError:
    print(done_ns, 0, 0)
"""
SUBJECTS = {"runtime": _RUNTIME, "bare": _BARE}


def sample_start(subject: str, artifact: Artifact) -> dict[str, float]:
    """One start of `runtime` or `bare`: wall_ms, and rss_mb and peak_rss_mb, 0 where the system has no /proc."""
    m = artifact.manifest
    package = __name__.rpartition(".")[0]
    root = Path(__file__).resolve().parents[len(package.split("."))]
    code = _HEAD + SUBJECTS[subject] + _TAIL
    given = [root, package, artifact.folder.resolve(), m.context, len(m.channels), int(m.takes_time)]
    environment = {NO_TELEMETRY: "1"} | {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    begun_ns = time.monotonic_ns()
    child = subprocess.run(
        [sys.executable, "-c", code, *map(str, given)], capture_output=True, text=True, env=environment, check=True
    )
    done_ns, rss_kb, peak_kb = map(int, child.stdout.split())
    return {"wall_ms": (done_ns - begun_ns) / 1e6, "rss_mb": rss_kb / 1024, "peak_rss_mb": peak_kb / 1024}


def measure_start(artifact: Artifact, *, pairs: int) -> dict[str, dict[str, float]]:
    """Medians of each subject over `pairs` starts of both in turn, after one that fills the disk's cache."""
    samples: dict[str, list[dict[str, float]]] = {name: [] for name in SUBJECTS}
    for turn in range(pairs + 1):
        for name in sorted(SUBJECTS, reverse=turn % 2 == 0):
            found = sample_start(name, artifact)
            if turn:
                samples[name].append(found)
    return {
        name: {key: statistics.median(row[key] for row in rows) for key in rows[0]} for name, rows in samples.items()
    }
