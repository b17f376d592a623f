"""What a rollout brings to whom, by which rules: the arguments that `deploy`, `plan` and `rehearse` share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from edgeflock_deploy.errors import BadInput

Command = TypeVar("Command", bound=Callable[..., Any])


def target_options(command: Command) -> Command:
    """Give a command MODEL, --variant, --to (`selector`), --policy (`policy_name`) and --start-at, in this order."""
    command = click.option("--start-at", help='Ask nobody before: "2026-11-23 02:00", 02:00 for the next one, or +2h.')(
        command
    )
    command = click.option(
        "--policy", "policy_name", default="standard", show_default=True, help="A shipped name or a TOML file."
    )(command)
    command = click.option(
        "--to", "selector", required=True, help="all, id=a,b, class=NAME or tag.KEY=VALUE, joined by `and`."
    )(command)
    command = click.option("--variant", required=True, help="Which variant.")(command)
    return click.argument("model")(command)


def name_and_version(model: str) -> tuple[str, int | None]:
    """MODEL[@VERSION] as the two; None: the newest.

    Raises:
        BadInput: what stands after the @ is no version.
    """
    name, at, number = model.partition("@")
    if at and (not number.isdigit() or int(number) < 1):
        raise BadInput(f"MODEL {model!r}", "has no version after the @", "write MODEL or MODEL@2")
    return name, int(number) if at else None
