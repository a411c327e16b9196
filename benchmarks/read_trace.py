"""Reading a big BurstGPT trace: time and memory of `read_trace` and of its cache, beside pyarrow's own parser.

    python -m benchmarks.read_trace [--rows 1430000] [--files 1] [--format csv] [--clean] [--repeats 7] [--json FILE]

Makes the files with the synthetic generator in a temporary folder. Each measurement is a fresh process that has
imported what it needs; the subjects take turns, so all see the same disturbances, and the files are read
once before, so all find them in the page cache. `pyarrow` is `pyarrow.csv.read_csv` (or `pyarrow.parquet.read_table`)
with its defaults: all columns, all cores. `cached` is what a second start of a command does. Memory is the peak of the
resident set during the read, less the resident set before it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from benchmarks.machine import describe_machine

TARGETS = {"time_ratio": 2.0, "memory_ratio": 3.0, "cache_ratio": 0.1}
BYTES_PER_ROW = 16  # float64 time, two int32 token counts
SUBJECTS = ("fcast", "pyarrow", "cached")


def main() -> None:
    """Run the benchmark, or one of its measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_430_000, help="requests in the trace (default 1,430,000)")
    parser.add_argument("--files", type=int, default=1, help="files that hold them (default 1)")
    parser.add_argument("--format", choices=("csv", "parquet"), default="csv", help="of the files (default csv)")
    parser.add_argument("--clean", action="store_true", help="drop failed requests, as --clean of the commands does")
    parser.add_argument("--repeats", type=int, default=7, help="fresh processes per subject (default 7)")
    parser.add_argument("--json", type=Path, help="also write the result here")
    parser.add_argument("--measure", nargs="+", metavar=("SUBJECT", "FILE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure[0], options.measure[1:], clean=options.clean)))
        return
    result = compare(options.rows, options.files, options.format, options.repeats, clean=options.clean)
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    print(f"{result['rows']:,} rows in {options.files} {options.format} file(s) of {result['file_bytes'] / 1e6:.0f} MB")
    for subject in SUBJECTS:
        found = result["subjects"][subject]
        print(f"{subject:8s} {found['time_s'] * 1e3:7.0f} ms   {found['peak_bytes'] / 1e6:6.1f} MB extra at the peak")
    print(f"time:   {result['time_ratio']:.2f} x pyarrow        (target: at most {TARGETS['time_ratio']:g})")
    print(f"        {result['time_ratio_fastest']:.2f} x pyarrow, fastest run of each")
    print(f"        {result['cpu_ratio']:.2f} x pyarrow, processor time of all threads")
    print(f"cache:  {result['cache_ratio']:.3f} x reading        (target: at most {TARGETS['cache_ratio']:g})")
    print(f"memory: {result['memory_ratio']:.2f} x final arrays   (target: at most {TARGETS['memory_ratio']:g})")


def compare(rows: int, files: int, form: str, repeats: int, *, clean: bool) -> dict:
    """Medians of the subjects over fresh processes that take turns."""
    samples: dict[str, list[dict]] = {subject: [] for subject in SUBJECTS}
    with tempfile.TemporaryDirectory() as folder:
        paths = write_files(Path(folder), rows, files, form)
        file_bytes = sum(len(path.read_bytes()) for path in paths)
        environment = {**os.environ, "FCAST_CACHE": str(Path(folder, "cache"))}
        time.sleep(3)  # a cache trusts only files that were at rest when it was written
        for repeat in range(-1, repeats):  # the first round fills the cache
            subjects = list(samples) if repeat % 2 else list(reversed(samples))
            for subject in subjects:
                command = [sys.executable, "-m", "benchmarks.read_trace", "--measure", subject, *map(str, paths)]
                command += ["--clean"] if clean else []
                done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
                if repeat >= 0:
                    samples[subject].append(json.loads(done.stdout))
                print(f"\r{repeat + 1}/{repeats} {subject:8s}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    found_rows = {name: {sample["rows"] for sample in found} for name, found in samples.items()}
    assert found_rows["fcast"] == found_rows["cached"]
    assert clean or found_rows["fcast"] == found_rows["pyarrow"]
    medians = {
        name: {key: statistics.median(sample[key] for sample in found) for key in ("time_s", "cpu_s", "peak_bytes")}
        | {"samples": found}
        for name, found in samples.items()
    }
    fastest = {name: min(sample["time_s"] for sample in found) for name, found in samples.items()}
    return {
        "benchmark": "read_trace",
        "rows": samples["fcast"][0]["rows"],
        "files": files,
        "clean": clean,
        "format": form,
        "file_bytes": file_bytes,
        "repeats": repeats,
        "time_ratio": medians["fcast"]["time_s"] / medians["pyarrow"]["time_s"],
        "time_ratio_fastest": fastest["fcast"] / fastest["pyarrow"],
        "cpu_ratio": medians["fcast"]["cpu_s"] / medians["pyarrow"]["cpu_s"],
        "cache_ratio": medians["cached"]["time_s"] / medians["fcast"]["time_s"],
        "memory_ratio": medians["fcast"]["peak_bytes"] / (BYTES_PER_ROW * samples["fcast"][0]["rows"]),
        "targets": TARGETS,
        "subjects": medians,
        "machine": describe_machine(),
    }


def write_files(folder: Path, rows: int, files: int, form: str) -> list[Path]:
    """A synthetic trace of 61 days, cut into files."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from training.synth import synthesize
    from training.trace_write import SYNTHETIC, write_trace

    trace = synthesize(days=61, rate_per_s=rows / (61 * 86400), seed=0)
    cuts = np.linspace(0, len(trace), files + 1).astype(int)
    paths = []
    for number, (low, high) in enumerate(pairwise(cuts)):
        paths.append(folder / f"synthetic-{number}.{form}")
        if form == "csv":
            part = {name: getattr(trace, name)[low:high] for name in ("time_s", "request_tokens", "response_tokens")}
            write_trace(replace(trace, **part), paths[-1], format="burstgpt", model=SYNTHETIC)
            continue
        assert trace.request_tokens is not None
        assert trace.response_tokens is not None
        columns = {
            "Timestamp": trace.time_s[low:high],
            "Model": [SYNTHETIC] * int(high - low),
            "Request tokens": trace.request_tokens[low:high],
            "Response tokens": trace.response_tokens[low:high],
        }
        pq.write_table(pa.table(columns), paths[-1])
    return paths


def measure(subject: str, paths: list[str], *, clean: bool) -> dict:
    """One read in this process: rows, seconds, and bytes of resident memory added at the peak."""
    import pyarrow.csv
    import pyarrow.parquet

    from training.readers import read_trace
    from training.trace_cache import cache_folder, read_cached

    def read() -> int:
        if subject == "fcast":
            return len(read_trace(paths, clean=clean))
        if subject == "cached":
            return len(read_cached(paths, folder=cache_folder(), clean=clean))
        parse = pyarrow.parquet.read_table if paths[0].endswith(".parquet") else pyarrow.csv.read_csv
        return sum(len(table) for table in [parse(path) for path in paths])

    before = _resident_bytes()
    with _Peak() as peak:
        start, cpu = time.perf_counter_ns(), time.process_time_ns()
        rows = read()
        elapsed, cpu = time.perf_counter_ns() - start, time.process_time_ns() - cpu
    return {"rows": rows, "time_s": elapsed / 1e9, "cpu_s": cpu / 1e9, "peak_bytes": peak.bytes - before}


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
