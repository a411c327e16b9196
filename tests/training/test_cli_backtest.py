"""`fcast-backtest` as a person uses it: what it prints, writes and refuses."""

from __future__ import annotations

import io
import json
import re
from xml.dom.minidom import parseString

import numpy as np
import pytest
from click.testing import CliRunner
from rich.console import Console

from training.backtest_table import summary_table, table
from training.cli_backtest import main
from training.cli_train import main as train

DAY_S = 86400


def counts_file(path, *, days=2, seed=0, start_s=1_700_006_400, bin_s=600):
    bins = days * DAY_S // bin_s
    rng = np.random.default_rng(seed)
    rate = 300 + 200 * np.sin(2 * np.pi * np.arange(bins) * bin_s / DAY_S)
    rows = [f"{start_s + bin_s * i},{n}" for i, n in enumerate(rng.poisson(rate))]
    path.write_text("start_s,requests\n" + "\n".join(rows) + "\n")
    return path


def requests_file(path, rows=400):
    rng = np.random.default_rng(0)
    times = np.cumsum(rng.exponential(1.0, rows))
    lines = [f"{t:.4f},{i},{o}" for t, i, o in zip(times, *rng.integers(1, 500, (2, rows)), strict=True)]
    path.write_text("Timestamp,Request tokens,Response tokens\n" + "\n".join(lines) + "\n")
    return path


def trained(folder, trace, *more, model="dlinear", series="load"):
    options = ["--series", series, "--bin", 600, "--context", 12, "--horizon", 3, "--epochs", 1, "--device", "cpu"]
    words = ["--trace", trace, "--model", model, "--out", folder, *options, *more]
    result = CliRunner().invoke(train, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return folder


def run(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


def one_line(result, code):
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    errors = [line for line in result.stderr.splitlines() if line.startswith("Error:")]
    assert len(errors) == 1, result.stderr
    return errors[0]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("backtest")
    trace = counts_file(folder / "week.csv", days=4)
    trained(folder / "runs", trace, "--set", "hidden_size=4", model="dlinear,gru")
    return folder


def test_models_stand_beside_the_baselines_with_intervals_and_capacity(made):
    result = run(made / "runs/dlinear", made / "runs/gru", "--trace", made / "week.csv")
    assert result.exit_code == 0, result.output
    for word in ("dlinear", "gru", "damped_holt", "interval", "1 %", "planned", "Capacity over demand"):
        assert word in result.stdout
    assert re.search(r"best baseline.*(gru|dlinear) \([+->]", result.stdout)
    assert max(len(line) for line in result.stdout.splitlines()) <= 120


def test_a_narrow_screen_gets_a_narrow_table(made):
    report = json.loads(run(made / "runs/dlinear", "--trace", made / "week.csv", "--json").stdout)
    for width in (80, 120):
        console = Console(width=width, file=io.StringIO())
        with console.capture() as shown:
            console.print(table(report, width=width))
        text = shown.get()
        assert "…" not in text
        assert max(len(line) for line in text.splitlines()) <= width


def test_json_prints_every_number_and_nothing_else(made):
    result = run(made / "runs/dlinear", "--trace", made / "week.csv", "--json", "--lead-time", "1200")
    report = json.loads(result.stdout)
    assert (report["lead_time_s"], report["lead_step"], report["kind"]) == (1200.0, 1, "load")
    assert {"dlinear", "last_value"} <= {row["name"] for row in report["forecasters"]}


def test_scores_of_a_fixed_model_are_those_of_its_training(made):
    report = json.loads(run(made / "runs/gru", "--trace", made / "week.csv", "--json").stdout)
    row = next(row for row in report["forecasters"] if row["name"] == "gru")
    saved = json.loads((made / "runs/gru/checkpoint.json").read_text())["scores"]["test"]
    assert row["test"]["wql"]["mean"] == pytest.approx(saved["wql"]["mean"])
    assert report["notes"] == []


def test_the_page_stands_alone_shows_every_section_and_no_name_breaks_it(made, tmp_path):
    page, trace = tmp_path / "report.html", tmp_path / "a<b>&.csv"
    trace.write_bytes((made / "week.csv").read_bytes())
    result = run(made / "runs/dlinear", made / "runs/gru", "--trace", trace, "--html", page)
    assert result.exit_code == 0, result.output
    text = page.read_text()
    for name in ("verdict", "forecasts", "accuracy", "calibration", "capacity", "data", "configuration"):
        assert f'<section id="{name}">' in text
        assert f'href="#{name}"' in text
    assert not re.search(r"(https?:)?//[a-z]|<script|<link|@import|url\((?!#)", text)
    pictures = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert len(pictures) >= 8
    for picture in pictures:
        parseString(picture.replace("xlink:href", "href"))
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r"url\(#([^)]+)\)", text)) <= set(ids)
    assert "fcast-backtest" in text
    assert "a&lt;b&gt;&amp;.csv" in text
    assert "a<b>" not in text
    assert page.stat().st_size < 2_000_000


def test_a_requests_series_is_judged_without_capacity(tmp_path):
    trace = requests_file(tmp_path / "t.csv")
    trained(tmp_path / "runs", trace, series="requests")
    result = run(tmp_path / "runs/dlinear", "--trace", trace, "--html", tmp_path / "r.html")
    assert result.exit_code == 0, result.output
    assert "capacity" not in result.stdout.lower()
    assert '<section id="capacity">' not in (tmp_path / "r.html").read_text()
    refused = run(tmp_path / "runs/dlinear", "--trace", trace, "--lead-time", "60")
    assert "--lead-time: expected runs on a load series" in one_line(refused, 2)


def test_each_file_by_itself_ends_with_mean_ranks(made, tmp_path):
    other = counts_file(tmp_path / "other.csv", days=4, seed=7, start_s=1_800_057_600)
    arguments = [made / "runs/dlinear", "--trace", made / "week.csv", "--trace", other, "--each"]
    result = run(*arguments, "--html", tmp_path / "r.html", "--json")
    assert result.exit_code == 0, result.output
    assert {path.name for path in tmp_path.glob("r.*")} == {"r.week.html", "r.other.html"}
    found = json.loads(result.stdout)
    shown = Console(width=80, file=io.StringIO(), record=True)
    shown.print(summary_table(found["summary"]))
    assert "mean rank" in shown.export_text()
    assert set(found["summary"]["files"]) == {"other.csv", "week.csv"}
    ranks = [row["mean_rank"] for row in found["summary"]["forecasters"]]
    assert ranks == sorted(ranks)
    strange = next(report for report in found["reports"] if report["trace"]["sources"] == ["other.csv"])
    assert strange["notes"] == ["dlinear was trained on other rows than these, and is applied as it is."]


def test_days_that_a_model_was_trained_on_are_named(made, tmp_path):
    longer = counts_file(tmp_path / "longer.csv", days=3)
    report = json.loads(run(made / "runs/dlinear", "--trace", longer, "--json").stdout)
    assert any("trained on days of this test part" in note for note in report["notes"])


def test_refit_says_what_it_trains_and_leaves_nothing_behind(made, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    result = run(made / "runs/dlinear", "--trace", made / "week.csv", "--refit", "2", "--json")
    assert result.exit_code == 0, result.output
    assert "refit 2/2: training dlinear on" in result.stderr
    report = json.loads(result.stdout)
    assert report["refit"] == 2
    assert not list(tmp_path.iterdir())


def test_steps_wider_than_bins_and_ensembles_are_judged_but_an_ensemble_is_not_refitted(tmp_path):
    trace = counts_file(tmp_path / "fine.csv", days=3)
    options = ["--step", 1800, "--ensemble", "--set", "hidden_size=4"]
    trained(tmp_path / "runs", trace, *options, model="dlinear,gru")
    arguments = [tmp_path / "runs/ensemble", "--trace", trace]
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert (report["step_s"], report["lead_time_s"]) == (1800.0, 5400.0)
    (row,) = (row for row in report["forecasters"] if row["model"])
    saved = json.loads((tmp_path / "runs/ensemble/checkpoint.json").read_text())["scores"]["test"]
    assert row["test"]["wql"]["mean"] == pytest.approx(saved["wql"]["mean"])
    assert row["demand"]["sum"]["requests"]["direct"]["wql"] > 0.0
    line = one_line(run(*arguments, "--refit", 2), 2)
    assert "got the ensemble" in line
    assert "give its members" in line


def test_the_folder_of_a_search_among_the_runs_is_passed_over(made, tmp_path):
    (tmp_path / "tune").mkdir()
    (tmp_path / "tune/dlinear.json").write_text("{}")
    result = run(made / "runs/dlinear", tmp_path / "tune", "--trace", made / "week.csv", "--json")
    assert [row["name"] for row in json.loads(result.stdout)["forecasters"] if row["model"]] == ["dlinear"]
    assert "tune: expected a run folder" in one_line(run(tmp_path / "tune", "--trace", made / "week.csv"), 1)


def test_validation_is_judged_by_the_weights_that_have_not_seen_it(made, tmp_path):
    trained(tmp_path / "runs", made / "week.csv", "--set", "refit=true")
    folder = tmp_path / "runs/dlinear"
    (row,) = (
        row
        for row in json.loads(run(folder, "--trace", made / "week.csv", "--json").stdout)["forecasters"]
        if row["model"]
    )
    saved = json.loads((folder / "checkpoint.json").read_text())["scores"]
    for part in ("validation", "test"):
        assert row[part]["wql"]["mean"] == pytest.approx(saved[part]["wql"]["mean"])
    (folder / "judged.safetensors").unlink()
    assert "judged.safetensors" in one_line(run(folder, "--trace", made / "week.csv"), 1)


def test_runs_on_other_data_settings_are_refused(made, tmp_path):
    other = trained(tmp_path / "runs", made / "week.csv", "--horizon", 4)
    line = one_line(run(made / "runs/dlinear", other / "dlinear", "--trace", made / "week.csv"), 2)
    assert "horizon 3" in line
    assert "got horizon 4" in line


def test_a_load_run_and_a_requests_run_are_refused_together(made, tmp_path):
    other = trained(tmp_path / "runs", requests_file(tmp_path / "t.csv"), series="requests")
    line = one_line(run(made / "runs/dlinear", other / "dlinear", "--trace", made / "week.csv"), 2)
    assert "series load" in line
    assert "got series requests" in line


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["runs", "--trace", "week.csv"], 1, "expected a run folder of fcast-train, got a folder of runs"),
        (["runs/none", "--trace", "week.csv"], 1, "expected a run folder of fcast-train"),
        (["runs/dlinear", "runs/../runs/dlinear", "--trace", "week.csv"], 2, "expected different runs"),
        (["runs/dlinear", "--trace", "none.csv"], 1, "none.csv"),
        (["runs/dlinear", "--trace", "short.csv"], 1, "expected at least one window"),
        (["runs/dlinear", "--trace", "week.csv", "--lead-time", "1900"], 2, "at most 1800 s"),
        (["runs/dlinear", "--trace", "week.csv", "--html", "nowhere/r.html"], 2, "in an existing folder"),
        (["runs/dlinear", "--trace", "week.csv", "--refit", "500"], 2, "fewer than 500 pieces"),
        (["runs/dlinear", "--trace", "week.csv", "--device", "cuda"], 1, "expected a CUDA GPU"),
        (["runs/dlinear", "--trace", "tokens.csv"], 1, "expected the channels requests that"),
    ],
)
def test_what_cannot_be_judged_gives_one_clear_line(made, monkeypatch, arguments, code, message):
    monkeypatch.chdir(made)
    counts_file(made / "short.csv", days=1, bin_s=600, start_s=1_700_006_400)
    (made / "short.csv").write_text("\n".join((made / "short.csv").read_text().splitlines()[:10]) + "\n")
    rows = "".join(f"{1_700_006_400 + 600 * i},{100 + i % 7},{900 + i % 5},50\n" for i in range(400))
    (made / "tokens.csv").write_text("start_s,requests,request_tokens,response_tokens\n" + rows)
    assert message in one_line(run(*arguments), code)


def test_an_interrupted_run_says_how_to_finish_it(made, tmp_path):
    (tmp_path / "half").mkdir()
    (tmp_path / "half/last.safetensors").write_bytes(b"")
    line = one_line(run(tmp_path / "half", "--trace", made / "week.csv"), 1)
    assert "got an interrupted one; finish it with fcast-train ... --resume" in line


def test_a_run_without_a_test_part_is_refused(made, tmp_path):
    meta = json.loads((made / "runs/dlinear/checkpoint.json").read_text())
    meta["config"]["data"]["split"] = [80.0, 20.0, 0.0]
    folder = tmp_path / "dlinear"
    folder.mkdir()
    for path in (made / "runs/dlinear").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "checkpoint.json").write_text(json.dumps(meta))
    line = one_line(run(folder, "--trace", made / "week.csv"), 2)
    assert "expected a run with a test part, got split 80,20,0" in line


def test_an_idle_trace_is_reported_without_a_warning(tmp_path):
    trace = tmp_path / "idle.csv"
    trace.write_text("start_s,requests\n" + "".join(f"{600 * i},0\n" for i in range(400)))
    trained(tmp_path / "runs", trace)
    result = run(tmp_path / "runs/dlinear", "--trace", trace, "--html", tmp_path / "r.html")
    assert result.exit_code == 0, result.output
    assert "nan" not in result.stdout.lower()
