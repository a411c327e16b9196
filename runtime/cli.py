"""What the runtime's command lines share: our own errors become one line and an exit code."""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import click

from .errors import FcastError

READER_GONE = 141
"""What a shell reports of a program that SIGPIPE ended, as `yes | head -1`."""


class Command(click.Command):
    """A click command whose foreseen failures print one line on stderr and never a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; exit 1 on a foreseen error, 130 on Ctrl-C, 141 when the reader of stdout has gone."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("always", RuntimeWarning)
                warnings.showwarning = lambda message, *_, **__: warn(str(message))
                result = super().invoke(ctx)
            if sys.stdout is not None:
                sys.stdout.flush()
            return result
        except FcastError as error:
            click.echo(f"Error: {error}", err=True)
            sys.exit(error.exit_code)
        except KeyboardInterrupt:
            sys.exit(130)
        except BrokenPipeError:
            _drop_stdout()
            sys.exit(READER_GONE)

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the program; a full or closed stdout, also under --help, is one line and exit code 1."""
        try:
            return super().main(*args, **kwargs)
        except OSError as error:
            _drop_stdout()
            click.echo(f"Error: stdout: expected room to write, got {error.strerror or error}", err=True)
            sys.exit(1)


@contextlib.contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """Keep stdout, where results go, from what onnxruntime prints there while it loads a model.

    `preload_dlls` does, and older sessions do. Only a program of ours may turn its own stdout: in a host the turn would
    catch the prints of other threads too.
    """
    with contextlib.redirect_stdout(sys.stderr):
        yield


def warn(text: str) -> None:
    """One line on stderr."""
    click.echo(f"Warning: {text}", err=True)


def _drop_stdout() -> None:
    """What is still buffered cannot be written: the flush at exit must not fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
