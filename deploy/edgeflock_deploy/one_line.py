"""What the user got wrong is told in one line, with exit code 2, by both commands.

The law of this file: it knows how an error reaches the terminal, and no command. `BadInput` is ours; what click finds
in the words themselves (a number out of range, an unknown option) it would tell in four lines, and is told alike. So is
a command whose packages are not installed here, as those of headquarters on a board.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any

import click

from edgeflock_deploy.errors import BadInput

# No words at all, where some are needed: click 8.2 and later raise the whole help, which is what is wanted.
_HELP: tuple[type[Exception], ...] = (
    (click.exceptions.NoArgsIsHelpError,) if hasattr(click.exceptions, "NoArgsIsHelpError") else ()
)


class OneLineGroup(click.Group):
    """A group of commands: `error: THING: WRONG; MEND` on stderr and exit code 2 for whatever the user got wrong."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the words before the first command."""
        with _told():
            return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that the words name."""
        with _told():
            return super().invoke(ctx)


@contextlib.contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except BadInput as error:
        line = str(error)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        extras = _extras_with(package)
        if not extras:
            raise
        line = f"this command needs the package {package}, which is not installed here; "
        line += f"pip install 'edgeflock[{extras[0]}]'"
    except click.UsageError as error:
        if isinstance(error, _HELP):
            raise
        said = " ".join(error.format_message().split()).rstrip(".")
        line = f"{said[:1].lower()}{said[1:]}; see `{error.ctx.command_path if error.ctx else 'edgeflock'} --help`"
    else:
        return
    click.echo(f"error: {line}", err=True)
    raise click.exceptions.Exit(2)


def _extras_with(package: str) -> list[str]:
    """The extras of this package that bring another one, by the name that is imported."""
    import importlib.metadata  # only where something is missing

    try:
        requirements = importlib.metadata.requires("edgeflock") or []
    except importlib.metadata.PackageNotFoundError:
        return []
    named = re.compile(rf"{re.escape(package.replace('_', '-'))}\b(?!-).*\bextra == ['\"](\w+)['\"]", re.IGNORECASE)
    return [found[1] for requirement in requirements if (found := named.match(requirement)) and found[1] != "dev"]
