"""What a rollout brings to whom, by which rules: the arguments that `deploy`, `plan` and `rehearse` share."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from edgeflock_deploy.errors import BadInput

if TYPE_CHECKING:
    from edgeflock_deploy.policy.rules import Policy

AUTO = "auto"  # in place of a variant's name: each class gets its own

_OPTIONS = (
    click.option("--variant", required=True, help="Which variant; auto: each class gets its own, as boards measured."),
    click.option("--to", "selector", required=True, help="all, id=a,b, class=NAME or tag.KEY=VALUE, joined by `and`."),
    click.option(
        "--policy", "policy_name", default="standard", show_default=True, help="A shipped name or a TOML file."
    ),
    click.option("--start-at", help='Ask nobody before: "2026-11-23 02:00", 02:00 for the next one, or +2h.'),
    click.option("--objective", help="With --variant auto: what is to be least or most, e.g. 'min energy_mj'."),
    click.option(
        "--require",
        help="With --variant auto: what must hold, e.g. 'accuracy_drop<=1pt' (below float32 of the same version).",
    ),
    click.option("--measure-on", type=click.IntRange(1, 100), help="With --variant auto: boards of each class. [2]"),
)


class Target(NamedTuple):
    """What is to be deployed, planned or rehearsed; `version` None is the newest, `start_at` in seconds since 1970.

    `objective`, `require` and `boards` (of each class, to measure) speak of the variant per class.
    """

    model: str
    version: int | None
    variant: str
    selector: str
    policy: Policy
    start_at: float | None
    objective: str
    require: str
    boards: int

    @property
    def per_class(self) -> bool:
        """Whether each class gets its own variant."""
        return self.variant == AUTO


def target_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command MODEL and the options above; it is called with a `Target` in place of them.

    Raises:
        BadInput: when it is called: what was given cannot be read, before anybody is asked.
    """

    @functools.wraps(command)
    def with_target(
        model: str,
        variant: str,
        selector: str,
        policy_name: str,
        start_at: str | None,
        objective: str | None,
        require: str | None,
        measure_on: int | None,
        **rest: Any,
    ) -> Any:
        from datetime import datetime

        from edgeflock_controller.cli.start_time import parse_start
        from edgeflock_deploy.policy.policy_file import load_policy

        _check_wish(variant, objective, require, measure_on)
        name, version = name_and_version(model)
        policy = load_policy(policy_name)
        at = None if start_at is None else parse_start(start_at, datetime.now())
        wish = objective or "", require or "", measure_on or 2
        return command(Target(name, version, variant, selector, policy, at, *wish), **rest)

    made: Callable[..., Any] = with_target
    for option in reversed(_OPTIONS):
        made = option(made)
    return click.argument("model")(made)


def _check_wish(variant: str, objective: str | None, require: str | None, measure_on: int | None) -> None:
    from edgeflock_controller.choice.wanted import parse_wanted

    if variant != AUTO:
        if objective is not None or require is not None or measure_on is not None:
            raise BadInput("--objective, --require, --measure-on", "choose a variant", "give --variant auto with them")
    elif objective is None:
        raise BadInput("--variant auto", "needs to know what is best", "give --objective, e.g. 'min latency_ms_p95'")
    else:
        parse_wanted(objective, require or "")


def name_and_version(model: str) -> tuple[str, int | None]:
    """MODEL[@VERSION] as the two; None: the newest.

    Raises:
        BadInput: what stands after the @ is no version.
    """
    name, at, number = model.partition("@")
    if at and (not number.isdigit() or int(number) < 1):
        raise BadInput(f"MODEL {model!r}", "has no version after the @", "write MODEL or MODEL@2")
    return name, int(number) if at else None
