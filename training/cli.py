"""What every command line of the training side shares: our own errors become one line and an exit code."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from training.errors import TrainingError
from training.stop import Terminated


class _Program(click.Command):
    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the program; a full stdout, also under --help, is one line and exit code 1."""
        try:
            return super().main(*args, **kwargs)
        except OSError as error:
            _drop_stdout()
            click.echo(f"Error: stdout: expected room to write, got {error.strerror or error}", err=True)
            sys.exit(1)


class Command(_Program):
    """A click command whose foreseen failures print one line on stderr and never a traceback.

    Commands import what is slow or belongs to an extra inside their function, so that `--help` needs click alone.
    """

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; exit 1 or 2 on a foreseen error, 130 on Ctrl-C, 141 when the reader of stdout has gone.

        SIGTERM is 143, where the command handles it.
        """
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result
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
        except Terminated:
            click.echo("Terminated.", err=True)
            sys.exit(143)
        except KeyboardInterrupt:
            click.echo("Interrupted.", err=True)
            sys.exit(130)
        except BrokenPipeError:
            _drop_stdout()
            sys.exit(141)  # what a shell reports of a program that SIGPIPE ended
        except OSError as error:
            if error.filename is None:
                _drop_stdout()
            click.echo(f"Error: {error.filename or 'stdout'}: {error.strerror or error}", err=True)
            sys.exit(1)


class Group(_Program, click.Group):
    """A group of such commands."""

    command_class = Command


@contextmanager
def shown_log() -> Iterator[None]:
    """Show what training has to say on stderr, line by line."""
    log, handler = logging.getLogger("training"), logging.Handler(logging.INFO)
    handler.emit = lambda record: click.echo(record.getMessage(), err=True)  # type: ignore[method-assign]
    level, propagate = log.level, log.propagate
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
        log.propagate = propagate


def _drop_stdout() -> None:
    """What is still buffered cannot be written: the flush at exit must not fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
