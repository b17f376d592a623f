"""Write the parts of the documentation that are read off the code.

`docs/cli.md` is every command's `--help`; the tables of modules in ARCHITECTURE.md are the first sentences of their
docstrings. `tests/unit/docs` holds that both are fresh.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from edgeflock_agent.cli import main as agent
from edgeflock_controller.cli import main as controller

DOCS = Path(__file__).parent
ROOT = DOCS.parent
PACKAGES = ("deploy", "compression", "controller", "agent")
WIDTH = 100
_MODULES = re.compile(r"(<!-- modules: .*? -->\n).*(<!-- end of modules -->)", re.DOTALL)


def cli_reference() -> str:
    """The command reference as Markdown: each command of both programs with its help."""
    parts = ["# Commands", "", "Written by `make docs` from `--help`; do not edit.", ""]
    for name, command in (("edgeflock", controller), ("edgeflock-agent", agent)):
        for words, text in helps(command, click.Context(command, info_name=name, terminal_width=WIDTH)):
            parts += [f"{'##' if words == name else '###'} {words}", "", "```", text.rstrip(), "```", ""]
    return "\n".join(parts)


def helps(command: click.Command, context: click.Context) -> Iterator[tuple[str, str]]:
    """The command path and help of a command and of all below it, in alphabetical order."""
    yield context.command_path, command.get_help(context)
    if isinstance(command, click.Group):
        for name in sorted(command.list_commands(context)):
            child = command.get_command(context, name)
            assert child is not None
            yield from helps(child, click.Context(child, info_name=name, parent=context, terminal_width=WIDTH))


def architecture() -> str:
    """ARCHITECTURE.md with its tables of modules as the code has them now."""
    tables = "\n".join(module_table(package) for package in PACKAGES)
    text = (ROOT / "ARCHITECTURE.md").read_text()
    return _MODULES.sub(lambda match: f"{match[1]}\n{tables}\n{match[2]}", text)


def module_table(package: str) -> str:
    """One Markdown table: each module below a source root, and the first sentence of its docstring."""
    lines = [f"### {package}", "", "| module | what it knows |", "|---|---|"]
    for path in sorted((ROOT / package).rglob("*.py")):
        if path.name != "__init__.py":
            docstring = ast.get_docstring(ast.parse(path.read_text())) or ""
            first = " ".join(docstring.split("\n\n")[0].split())
            lines.append(f"| [{path.stem}]({path.relative_to(ROOT)}) | {first.replace('|', chr(92) + '|')} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write `docs/cli.md` and the tables in ARCHITECTURE.md."""
    (DOCS / "cli.md").write_text(cli_reference())
    (ROOT / "ARCHITECTURE.md").write_text(architecture())
    sys.stdout.write(f"wrote {DOCS / 'cli.md'} and {ROOT / 'ARCHITECTURE.md'}\n")


if __name__ == "__main__":
    main()
