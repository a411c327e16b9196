"""What the runtime's command lines share: our own errors become one line and an exit code."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from .errors import FcastError


class Command(click.Command):
    """A click command whose foreseen failures print one line on stderr and never a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; exit 1 on a foreseen error, 130 on Ctrl-C, quietly when the reader of stdout has gone."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result
        except FcastError as error:
            click.echo(f"Error: {error}", err=True)
            sys.exit(error.exit_code)
        except KeyboardInterrupt:
            sys.exit(130)
        except BrokenPipeError:
            # What is still buffered has no reader: the flush at exit must not fail again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
