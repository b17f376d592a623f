from __future__ import annotations

from collections.abc import Iterator

import click
import pytest

from edgeflock_agent.cli import main as agent
from edgeflock_controller.cli import main as headquarters
from edgeflock_deploy.given_numbers import FloatRange


def options(command: click.Command) -> Iterator[click.Parameter]:
    yield from command.params
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from options(found)


@pytest.mark.parametrize("command", [agent, headquarters], ids=["edgeflock-agent", "edgeflock"])
def test_no_option_takes_nan_or_infinity(command: click.Command) -> None:
    taken = [one for one in options(command) if isinstance(one.type, click.types.FloatParamType)]
    assert len(taken) >= 4
    assert [one.name for one in taken if not isinstance(one.type, FloatRange)] == []


def test_a_number_within_the_range_is_taken_as_it_is() -> None:
    assert FloatRange(0, 1).convert("0.25", None, None) == 0.25
    for text in ("nan", "inf", "-inf", "2", "none"):
        with pytest.raises(click.BadParameter):
            FloatRange(0, 1).convert(text, None, None)
