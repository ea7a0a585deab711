"""What every command shares: where output goes, how an error is shown, and which exit code it has.

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

from recon_pipeline.core.errors import NOTHING_CHANGED, BlockedError, ConfigurationError, ReconError

EXIT_CLEAN, EXIT_NOT_CLEAN, EXIT_USAGE, EXIT_BLOCKED = 0, 1, 2, 3
_AS_JSON = f"{__name__}.as_json"
_UNCUT = 1_000
"""Characters of a sentence in a list of commands: more than any has."""

json_option = click.option(
    "--json", "as_json", is_flag=True, help="One JSON object on stdout, everything else on stderr."
)

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


def _show_error_as_json(what: str, changed: str, fix: str, *, blocked: bool = False) -> None:
    show_json({"success": False, "blocked": blocked, "error": what, "changed": changed, "what_to_do": fix})


def show_error(error: ReconError) -> None:
    """Show the three parts of an error on stderr."""
    # Not wrapped: a fix is often a statement, to be copied as it stands.
    err.print(f"[bold red]{escape(error.what)}[/]", soft_wrap=True)
    err.print(escape(error.changed), soft_wrap=True)
    err.print(f"[bold]What to do:[/] {escape(error.fix)}", soft_wrap=True)


class WholeSentences(click.Group):
    """Commands whose list has a whole sentence for each; click would cut it at the terminal's width."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands."""
        found = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl([(name, one.get_short_help_str(limit=_UNCUT)) for name, one in found if one])


class Commands(WholeSentences):
    """The commands; wrong usage of one that was given `--json` is shown as JSON too."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Note `--json` before the command's own options are read: they may be what is wrong."""
        ctx.meta[_AS_JSON] = "--json" in args
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            if ctx.meta[_AS_JSON]:
                _show_error_as_json(error.format_message(), NOTHING_CHANGED, f"Try {ctx.info_name} --help.")
            raise


def reporting_errors(command: Callable[_P, int]) -> Callable[_P, NoReturn]:
    """Let a command return its exit code, and show the errors that it raises.

    The command's keyword `as_json`, where it has one, decides whether the error is shown as JSON too.
    """

    @wraps(command)
    def reported(*args: _P.args, **options: _P.kwargs) -> NoReturn:
        try:
            sys.exit(command(*args, **options))
        except ReconError as error:
            show_error(error)
            if options.get("as_json"):
                _show_error_as_json(error.what, error.changed, error.fix, blocked=isinstance(error, BlockedError))
            sys.exit(exit_code_of(error))

    return reported
