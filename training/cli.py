"""What every command line of the training side shares: our own errors become one line and an exit code."""

from __future__ import annotations

import sys
from typing import Any

import click

from training.errors import TrainingError


class Command(click.Command):
    """A click command whose foreseen failures print one line on stderr and never a traceback.

    Commands import what is slow or belongs to an extra inside their function, so that `--help` needs click alone.
    """

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; exit 1 or 2 on a foreseen error, 130 on Ctrl-C."""
        try:
            return super().invoke(ctx)
        except ModuleNotFoundError as error:
            package = (error.name or "").partition(".")[0]
            if package in ("training", "export", "runtime", "predictor"):
                raise
            extra = "export" if self.callback and self.callback.__module__.startswith("export.") else "train"
            click.echo(f"Error: expected the package {package}, got none; pip install 'fcast[{extra}]'", err=True)
            sys.exit(1)
        except TrainingError as error:
            click.echo(f"Error: {error}", err=True)
            sys.exit(error.exit_code)
        except KeyboardInterrupt:
            click.echo("Interrupted.", err=True)
            sys.exit(130)
        except BrokenPipeError:
            sys.stderr.close()
            sys.exit(1)
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            click.echo(f"Error: {where}{error.strerror or error}", err=True)
            sys.exit(1)
