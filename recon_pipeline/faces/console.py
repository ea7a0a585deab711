"""What every command shares: where output goes, how an error is told, and which exit code it has.

With `--json` exactly one JSON object goes to stdout, also for an error; everything else goes to stderr.
"""

import json
import sys
from collections.abc import Callable
from functools import wraps
from typing import Any, NoReturn, ParamSpec

import click
from rich.console import Console
from rich.markup import escape

from recon_pipeline.core.errors import BlockedError, ConfigurationError, ReconError

EXIT_CLEAN, EXIT_NOT_CLEAN, EXIT_USAGE, EXIT_BLOCKED = 0, 1, 2, 3

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

_P = ParamSpec("_P")


def show_json(value: dict[str, Any]) -> None:
    """Put the command's one JSON object on stdout."""
    click.echo(json.dumps(value, default=str))


def exit_code_of(error: ReconError) -> int:
    """2 for a wrong configuration, 3 for a guard, else 1."""
    if isinstance(error, ConfigurationError):
        return EXIT_USAGE
    return EXIT_BLOCKED if isinstance(error, BlockedError) else EXIT_NOT_CLEAN


def tell_error(error: ReconError) -> None:
    """Show the three parts of an error on stderr."""
    err.print(f"[bold red]{escape(error.what)}[/]")
    err.print(escape(error.changed))
    err.print(f"[bold]What to do:[/] {escape(error.mend)}")


def telling_errors(command: Callable[_P, int]) -> Callable[_P, NoReturn]:
    """Let a command return its exit code, and tell the errors that it raises.

    The command's keyword `as_json`, where it has one, decides whether the error is told as JSON too.
    """

    @wraps(command)
    def told(*args: _P.args, **options: _P.kwargs) -> NoReturn:
        try:
            sys.exit(command(*args, **options))
        except ReconError as error:
            tell_error(error)
            if options.get("as_json"):
                facts = {"error": error.what, "changed": error.changed, "what_to_do": error.mend}
                show_json({"success": False, "blocked": isinstance(error, BlockedError), **facts})
            sys.exit(exit_code_of(error))

    return told
