"""Reading a big BurstGPT trace: time and memory of `read_trace` beside pyarrow's own parser.

    python -m benchmarks.read_trace [--rows 1430000] [--repeats 7] [--json result.json]

Makes the file with the synthetic generator in a temporary folder. Each measurement is a fresh process that has
imported what it needs; the two subjects alternate, so both see the same disturbances, and the file is read
once before, so both find it in the page cache. `pyarrow` is `pyarrow.csv.read_csv` with its defaults (all
columns, all cores). Memory is the peak of the resident set during the read, less the resident set before it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from benchmarks.machine import describe_machine

TARGETS = {"time_ratio": 2.0, "memory_ratio": 3.0}
BYTES_PER_ROW = 16  # float64 time, two int32 token counts


def main() -> None:
    """Run the benchmark, or one of its measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_430_000, help="requests in the trace (default 1,430,000)")
    parser.add_argument("--repeats", type=int, default=7, help="fresh processes per subject (default 7)")
    parser.add_argument("--json", type=Path, help="also write the result here")
    parser.add_argument("--measure", nargs=2, metavar=("SUBJECT", "FILE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(*options.measure)))
        return
    result = compare(options.rows, options.repeats)
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    for subject in ("fcast", "pyarrow"):
        found = result["subjects"][subject]
        print(f"{subject:8s} {found['time_s'] * 1e3:7.0f} ms   {found['peak_bytes'] / 1e6:6.1f} MB extra at the peak")
    print(f"time:   {result['time_ratio']:.2f} x pyarrow        (target: at most {TARGETS['time_ratio']:g})")
    print(f"        {result['time_ratio_fastest']:.2f} x pyarrow, fastest run of each")
    print(f"        {result['cpu_ratio']:.2f} x pyarrow, processor time of all threads")
    print(f"memory: {result['memory_ratio']:.2f} x final arrays   (target: at most {TARGETS['memory_ratio']:g})")


def compare(rows: int, repeats: int) -> dict:
    """Medians of both subjects over fresh processes that alternate."""
    from training.synth import synthesize
    from training.trace_write import SYNTHETIC, write_trace

    samples: dict[str, list[dict]] = {"fcast": [], "pyarrow": []}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "synthetic.csv")
        trace = synthesize(days=61, rate_per_s=rows / (61 * 86400), seed=0)
        write_trace(trace, path, format="burstgpt", model=SYNTHETIC)
        file_bytes = len(path.read_bytes())
        for repeat in range(repeats):
            subjects = list(samples) if repeat % 2 else list(reversed(samples))
            for subject in subjects:
                command = [sys.executable, "-m", "benchmarks.read_trace", "--measure", subject, str(path)]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                samples[subject].append(json.loads(done.stdout))
                print(f"\r{repeat + 1}/{repeats} {subject:8s}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    assert {sample["rows"] for found in samples.values() for sample in found} == {len(trace)}
    subjects_result = {
        name: {key: statistics.median(sample[key] for sample in found) for key in ("time_s", "cpu_s", "peak_bytes")}
        | {"samples": found}
        for name, found in samples.items()
    }
    return {
        "benchmark": "read_trace",
        "rows": len(trace),
        "file_bytes": file_bytes,
        "repeats": repeats,
        "time_ratio": subjects_result["fcast"]["time_s"] / subjects_result["pyarrow"]["time_s"],
        "time_ratio_fastest": min(sample["time_s"] for sample in samples["fcast"])
        / min(sample["time_s"] for sample in samples["pyarrow"]),
        "cpu_ratio": subjects_result["fcast"]["cpu_s"] / subjects_result["pyarrow"]["cpu_s"],
        "memory_ratio": subjects_result["fcast"]["peak_bytes"] / (BYTES_PER_ROW * len(trace)),
        "targets": TARGETS,
        "subjects": subjects_result,
        "machine": describe_machine(),
    }


def measure(subject: str, path: str) -> dict:
    """One read in this process: rows, seconds, and bytes of resident memory added at the peak."""
    import numpy as np  # noqa: F401  imports are not part of what is measured
    import pyarrow.csv

    from training.readers import read_trace

    before = _resident_bytes()
    with _Peak() as peak:
        start, cpu = time.perf_counter_ns(), time.process_time_ns()
        result = read_trace([path]) if subject == "fcast" else pyarrow.csv.read_csv(path)
        elapsed, cpu = time.perf_counter_ns() - start, time.process_time_ns() - cpu
    return {"rows": len(result), "time_s": elapsed / 1e9, "cpu_s": cpu / 1e9, "peak_bytes": peak.bytes - before}


class _Peak:
    """The largest resident set while the block runs: the kernel's own mark, or where it can't be reset, samples."""

    def __enter__(self) -> _Peak:
        self.bytes, self._stop = 0, threading.Event()
        try:
            Path("/proc/self/clear_refs").write_text("5")
            self._thread = None
        except OSError:
            self._thread = threading.Thread(target=self._sample)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread is None:
            self.bytes = _status_bytes("VmHWM")
        else:
            self._thread.join()

    def _sample(self) -> None:
        while not self._stop.wait(0.001):
            self.bytes = max(self.bytes, _resident_bytes())


def _resident_bytes() -> int:
    return _status_bytes("VmRSS")


def _status_bytes(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key + ":"))


if __name__ == "__main__":
    main()
