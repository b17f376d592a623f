"""`edgeflock policy`: the rules of rollouts, shown, checked and explained. It needs no service."""

from __future__ import annotations

import click

from edgeflock_controller.cli.options import json_option, print_json

_READABLE = 110  # columns


@click.group()
def policy() -> None:
    r"""Show, check and explain the rules of rollouts.

    \b
    Example:
      edgeflock policy list
      edgeflock policy show standard > mine.toml
      edgeflock policy check mine.toml
    """


@policy.command("list")
@json_option
def list_(as_json: bool) -> None:
    r"""List the policies that come with the product.

    \b
    Example:
      edgeflock policy list
    """
    from edgeflock_deploy.policy.policy_file import shipped_policies, shipped_text

    found = {name: _summary(shipped_text(name)) for name in shipped_policies()}
    if as_json:
        print_json([{"name": name, "summary": summary} for name, summary in found.items()])
        return
    width = max(len(name) for name in found)
    for name, summary in found.items():
        click.echo(f"{name:<{width}}  {summary}")


@policy.command()
@click.argument("name")
@json_option
def show(name: str, as_json: bool) -> None:
    r"""Print a shipped policy as it is written, with the reason beside each number; a good start for one's own.

    \b
    Example:
      edgeflock policy show standard > mine.toml
    """
    from edgeflock_deploy.policy.policy_file import load_policy, shipped_text

    if as_json:
        print_json(load_policy(name).model_dump(mode="json", by_alias=True))
    else:
        click.echo(shipped_text(name), nl=False)


@policy.command()
@click.argument("file", metavar="NAME|FILE")
@json_option
def check(file: str, as_json: bool) -> None:
    r"""Say in words what a policy does, what its numbers mean, and what to doubt of them.

    How few windows a PASS and a FAIL take is found out from the judge itself, on made-up windows without scatter. For
    how long a rollout to a certain fleet will take, ask `edgeflock plan`.

    \b
    Example:
      edgeflock policy check mine.toml
    """
    from edgeflock_controller.policy_words.doubts import doubts
    from edgeflock_controller.policy_words.least import least_windows
    from edgeflock_controller.policy_words.sentences import passages
    from edgeflock_deploy.policy.policy_file import load_policy

    rules = load_policy(file)
    least = least_windows(rules)
    said, doubted = passages(rules, least), doubts(rules, least)
    if as_json:
        shown = {"policy": rules.model_dump(mode="json", by_alias=True), "doubts": doubted}
        print_json(shown | {"passages": [passage._asdict() for passage in said]})
        return
    _print([(passage.about, passage.text) for passage in said], doubted)


@policy.command()
def schema() -> None:
    r"""Print the JSON Schema of policies, for editors and other programs.

    It knows keys, types and bounds. What speaks of several keys at once is known to `check` alone.

    \b
    Example:
      edgeflock policy schema > policy.schema.json
    """
    from edgeflock_deploy.policy.policy_file import policy_schema

    print_json(policy_schema())


def _summary(text: str) -> str:
    """What a shipped policy says of itself in its first line."""
    return text.splitlines()[0].lstrip("# ")


def _print(said: list[tuple[str, str]], doubted: list[str]) -> None:
    import textwrap

    from edgeflock_controller.cli import render

    width = min(render.console().width, _READABLE)
    for about, text in said:
        click.echo(about)
        click.echo(textwrap.fill(text, width, initial_indent="  ", subsequent_indent="  "))
    click.echo("to doubt" if doubted else "nothing to doubt")
    for sentence in doubted:
        click.echo(textwrap.fill(sentence, width, initial_indent="- ", subsequent_indent="  "))
