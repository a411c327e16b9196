"""Export two tiny artifacts with the code of the working directory, of whichever commit: see artifacts/README.md."""

import sys
from dataclasses import replace
from pathlib import Path

from export.artifact import export_checkpoint
from training import config
from training.run import prepare, train_model
from training.synth import synthesize

out = Path(sys.argv[1])
ModelSettings = getattr(config, "ForecasterConfig", None) or config.ModelConfig  # its name until 3a5db24
trace = synthesize(days=0.04, rate_per_s=0.1, seed=0)
trace = replace(trace, clock="epoch", time_s=trace.time_s + 1.7e9)
for kind, model, calendar in (("requests", "gru", "none"), ("load", "dlinear", "day+week")):
    run = out / "runs" / kind
    run.mkdir(parents=True)
    settings = config.RunConfig(
        data=config.DataConfig(series=kind, context=6, horizon=2, bin_s=30.0),
        model=ModelSettings(model=model, calendar=calendar, params={"hidden_size": 4} if model == "gru" else {}),
        fit=config.FitConfig(epochs=1, device="cpu", seed=0),
    )
    train_model(prepare(trace, settings.data), settings, run)
    print(export_checkpoint(run, name=kind, out=out / "artifacts").path)
