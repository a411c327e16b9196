"""The torch side of fcast: traces, series, windows, models, fitting, checkpoints and reports."""
