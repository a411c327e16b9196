"""What earlier commits exported loads, verifies and forecasts: tests/data/artifacts/README.md says which."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from runtime import Predictor
from runtime.artifact import open_artifact
from runtime.golden import read_golden
from runtime.verify import verify

EARLIER = sorted((Path(__file__).parents[1] / "data/artifacts").glob("*/*/1"))

each = pytest.mark.parametrize("folder", EARLIER, ids=["-".join(f.parts[-3:-1]) for f in EARLIER])


def test_both_kinds_of_three_commits_are_kept() -> None:
    kept = {folder.parts[-3:-1] for folder in EARLIER}
    assert kept >= {(commit, kind) for commit in ("8b18656", "eff9c03", "7f09553") for kind in ("load", "requests")}


@each
def test_an_earlier_artifact_verifies(folder: Path) -> None:
    result = verify(folder, device="cpu")
    assert result.problems == []
    assert {check.output for check in result.forecasts} == set(open_artifact(folder).manifest.outputs)


@each
def test_an_earlier_artifact_forecasts_what_it_did_then(folder: Path) -> None:
    golden = read_golden(open_artifact(folder))
    forecast = Predictor(folder.parent, device="cpu").predict(golden.context, golden.time_s)
    np.testing.assert_allclose(forecast, golden.outputs["forecast"], rtol=1e-4)


@each
def test_an_earlier_artifact_forecasts_an_observed_stream(folder: Path) -> None:
    predictor = Predictor(folder.parent, device="cpu")
    steps = int(predictor.manifest["context"])
    for i in range(steps + 2):
        if predictor.manifest["kind"] == "requests":
            predictor.observe(1.7e9 + 5.0 * i, 100 + i, 20)
        else:
            predictor.observe_bin(1.7e9 // 30 * 30 + 30.0 * i, 3, 300 + i, 60)
    forecast = predictor.forecast()
    assert forecast.source == "model"
    assert np.isfinite(forecast.values).all()
