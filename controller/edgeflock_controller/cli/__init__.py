"""The command `edgeflock`. Subcommands are imported when they are called, so that `--help` answers at once.

Exit codes: 0 done, 1 the answer is no, 2 bad input, 130 interrupted.
"""

from __future__ import annotations

import importlib
from typing import Any, NamedTuple

import click

from edgeflock_deploy.one_line import OneLineGroup


class _Entry(NamedTuple):
    target: str  # module:attribute
    help: str


_COMMANDS = {
    "compress": _Entry("compress:compress", "Make smaller variants of a trained model, with proof."),
    "search": _Entry("search:search", "Find the variants of a model that are worth shipping."),
    "recipes": _Entry("recipes:recipes", "Show the compression passes, and what a recipe's name stands for."),
    "reproduce": _Entry("reproduce:reproduce", "Make a variant again from its record, byte for byte."),
    "keys": _Entry("keys:keys", "Make the keys that sign bundles and orders."),
    "publish": _Entry("publish:publish", "Sign variants and hand them to the service."),
    "serve": _Entry("serve:serve", "Run the controller service."),
    "models": _Entry("models:models", "Show what is published."),
    "devices": _Entry("devices:devices", "Show the boards and what they run; tag them."),
    "freeze": _Entry("freeze:freeze", "Have a board get nothing new, or no rollout start for a model."),
    "unfreeze": _Entry("freeze:unfreeze", "Lift a freeze."),
    "captures": _Entry("captures:captures", "Fetch the inputs that a board has kept."),
    "policy": _Entry("policy:policy", "Show, check and explain the rules of rollouts."),
    "plan": _Entry("plan:plan", "Say what a deployment would do, and what its canary can detect."),
    "rehearse": _Entry("rehearse:rehearse", "Run a rollout in simulation, on the fleet as it was recorded."),
    "front": _Entry("front:front", "Show what boards measured of a model's variants."),
    "deploy": _Entry("deploy:deploy", "Bring a variant to devices, stage by stage."),
    "rollouts": _Entry("rollouts:rollouts", "Show rollouts; approve, hold, resume or abort one."),
    "rollback": _Entry("rollback:rollback", "Take devices back to what they had committed before."),
    "vm": _Entry("vm:vm", "Run virtual ARM boards on this machine."),
    "watch": _Entry("watch:watch", "Watch devices and rollouts live."),
    "audit": _Entry("audit:audit", "Show who did what, when, and what came of it."),
    "why": _Entry("why:why", "Explain a rollout from its journal."),
}


class _LazyGroup(OneLineGroup):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's interface
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - the same
        entry = _COMMANDS.get(cmd_name)
        if entry is None:
            return None
        module, _, attribute = entry.target.partition(":")
        command: click.Command = getattr(importlib.import_module(f"{__name__}.{module}"), attribute)
        _keep_examples(command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - the same
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.help) for name, entry in _COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            raise click.exceptions.Exit(130) from None


def _keep_examples(command: click.Command) -> None:
    # Docstrings are raw strings, in which click's mark of a paragraph that is not re-wrapped is two characters.
    if command.help:
        command.help = command.help.replace("\\b\n", "\b\n")
    if isinstance(command, click.Group):
        for nested in command.commands.values():
            _keep_examples(nested)


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="edgeflock")
def main() -> None:
    """Make a model small, prove it on the boards themselves, and bring it to a whole fleet without breaking it.

    EDGEFLOCK_HOME (default ~/.edgeflock) holds the keys and the store.
    """
