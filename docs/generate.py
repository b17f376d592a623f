"""Write the parts of the documentation that are read off the code.

`docs/cli.md` is every command's `--help`; the tables of modules in ARCHITECTURE.md are the first sentences of their
docstrings; the state diagrams in `docs/rollouts.md` are the tables of `transitions`. `tests/unit/docs` holds that all
are fresh.
"""

from __future__ import annotations

import argparse
import ast
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from edgeflock_agent.cli import main as agent
from edgeflock_controller.cli import main as controller
from edgeflock_deploy.rollout.state import DeviceStatus, RolloutPhase, StagePhase
from edgeflock_deploy.rollout.transitions import DEVICE, ROLLOUT, STAGE, diagram

DOCS = Path(__file__).parent
ROOT = DOCS.parent
PACKAGES = ("deploy", "compression", "controller", "agent")
WIDTH = 100
_STATES = re.compile(r"(<!-- states: begin -->\n).*(<!-- states: end -->)", re.DOTALL)
_MODULES = re.compile(r"(<!-- modules: .*? -->\n).*(<!-- end of modules -->)", re.DOTALL)


def cli_reference() -> str:
    """The command reference as Markdown: each command of both programs with its help."""
    parts = ["# Commands", "", "Written by `make docs` from `--help`; do not edit.", ""]
    for name, command in (("edgeflock", controller), ("edgeflock-agent", agent)):
        for words, text in helps(command, _context(command, name)):
            parts += [f"{'##' if words == name else '###'} {words}", "", "```", text.rstrip(), "```", ""]
    return "\n".join(parts)


def helps(command: click.Command, context: click.Context) -> Iterator[tuple[str, str]]:
    """The command path and help of a command and of all below it, in alphabetical order."""
    yield context.command_path, command.get_help(context)
    if isinstance(command, click.Group):
        for name in sorted(command.list_commands(context)):
            child = command.get_command(context, name)
            assert child is not None
            yield from helps(child, _context(child, name, context))


def _context(command: click.Command, name: str, parent: click.Context | None = None) -> click.Context:
    settings = {**command.context_settings, "terminal_width": WIDTH, "max_content_width": WIDTH}
    return click.Context(command, info_name=name, parent=parent, **settings)


def architecture() -> str:
    """ARCHITECTURE.md with its tables of modules as the code has them now."""
    tables = "\n".join(module_table(package) for package in PACKAGES)
    text = (ROOT / "ARCHITECTURE.md").read_text()
    return _MODULES.sub(lambda match: f"{match[1]}\n{tables}\n{match[2]}", text)


def rollouts() -> str:
    """docs/rollouts.md with its state diagrams as the code has them now."""
    drawn = (
        (
            "A rollout",
            diagram(ROLLOUT, RolloutPhase.WAITING_FOR_APPROVAL, RolloutPhase.SCHEDULED, RolloutPhase.RUNNING),
        ),
        ("A stage", diagram(STAGE, StagePhase.PENDING)),
        ("A device in a rollout", diagram(DEVICE, DeviceStatus.WAITING)),
    )
    text = "\n".join(f"### {title}\n\n```mermaid\n{states}\n```\n" for title, states in drawn)
    return _STATES.sub(lambda match: f"{match[1]}\n{text}\n{match[2]}", (DOCS / "rollouts.md").read_text())


def module_table(package: str) -> str:
    """One Markdown table: each module below a source root, and the first sentence of its docstring."""
    lines = [f"### {package}", "", "| module | what it knows |", "|---|---|"]
    for path in sorted((ROOT / package).rglob("*.py")):
        if path.name != "__init__.py":
            docstring = ast.get_docstring(ast.parse(path.read_text())) or ""
            first = " ".join(docstring.split("\n\n")[0].split())
            lines.append(f"| [{path.stem}]({path.relative_to(ROOT)}) | {first.replace('|', chr(92) + '|')} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Write all of it; with `--check` only say what is stale, by exit code 1."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if something is stale")
    check = parser.parse_args().check
    if "EDGEFLOCK_HOME" in os.environ:
        sys.exit("EDGEFLOCK_HOME is set and would stand in the reference as a default: unset it")
    stale = False
    pages = {DOCS / "cli.md": cli_reference, ROOT / "ARCHITECTURE.md": architecture, DOCS / "rollouts.md": rollouts}
    for path, write in pages.items():
        text = write()
        if not path.exists() or path.read_text() != text:
            stale = True
            sys.stdout.write(f"{'stale' if check else 'wrote'} {path.relative_to(ROOT)}\n")
            if not check:
                path.write_text(text)
    return int(stale and check)


if __name__ == "__main__":
    sys.exit(main())
