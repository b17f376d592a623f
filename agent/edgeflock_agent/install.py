"""`edgeflock-agent install`: writes what systemd needs to keep an agent running, and starts nothing.

Decided here: which files there are, who may read them, and what is refused before a service would fail on it. The unit
itself is `edgeflock-agent.service` beside this file; only the path of the program is put into it. A second run writes
the same files; what it does not change it does not touch.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import click

from edgeflock_agent.serving.listening import check_loopback, host_port
from edgeflock_deploy import topics
from edgeflock_deploy.errors import BadInput
from edgeflock_deploy.keys import Trust
from edgeflock_deploy.link import parse_broker
from edgeflock_deploy.tags import parse_tags

UNIT = "edgeflock-agent.service"
_SHIPPED_PROGRAM = "/opt/edgeflock/bin/edgeflock-agent"
_HIDDEN = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")  # noqa: S108 - what the unit hides from the service


class File(NamedTuple):
    """A file to be written: where, what, and who may do what with it."""

    path: Path
    content: bytes
    mode: int


def unit_text(program: str = _SHIPPED_PROGRAM) -> str:
    """The unit, starting this program."""
    shipped = resources.files("edgeflock_agent").joinpath(UNIT).read_text()
    return shipped.replace(_SHIPPED_PROGRAM, program)


def files(device: str, broker: str, trust: bytes, program: str, options: Iterable[str]) -> list[File]:
    """What an agent under systemd needs, by its path on the board.

    Args:
        device: its id.
        broker: its broker.
        trust: the bytes of its trust.json.
        program: path of `edgeflock-agent`.
        options: more options of `edgeflock-agent run`.
    """
    lines = [
        "# Written by `edgeflock-agent install`; what is put here is taken at the next start of the service.",
        f"EDGEFLOCK_ID={device}",
        f"EDGEFLOCK_BROKER={broker}",
        f"EDGEFLOCK_OPTIONS={' '.join(options)}",
    ]
    user = 'u edgeflock - "Edgeflock agent" /var/lib/edgeflock\n'
    return [
        File(Path("/etc/sysusers.d/edgeflock.conf"), user.encode(), 0o644),
        File(Path("/etc/edgeflock/agent.env"), ("\n".join(lines) + "\n").encode(), 0o600),
        File(Path("/etc/edgeflock/trust.json"), trust, 0o644),
        File(Path("/etc/systemd/system") / UNIT, unit_text(program).encode(), 0o644),
    ]


def write(root: Path, wanted: Iterable[File]) -> list[tuple[Path, bool]]:
    """Write files below a root; each with whether it had to be written.

    Raises:
        BadInput: one cannot be written.
    """
    done = []
    for file in wanted:
        path = root / file.path.relative_to("/")
        try:
            same = path.is_file() and path.read_bytes() == file.content and path.stat().st_mode & 0o777 == file.mode
            if not same:
                _put(path, file)
        except OSError as error:
            raise BadInput(
                str(path), f"cannot be written ({error.strerror})", "run it with sudo, or look with --dry-run"
            ) from None
        done.append((path, not same))
    return done


def _put(path: Path, file: File) -> None:
    """Never readable by more than it shall be, and never half there."""
    for folder in reversed([path.parent, *path.parent.parents]):
        if not folder.exists():  # the service's own user must come through, whatever umask an administrator has
            folder.mkdir()
            folder.chmod(0o755)
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
        out.write(file.content)
        os.fchmod(out.fileno(), file.mode)
    fresh.replace(path)


_OF_THE_UNIT = {
    "--id": "name the device with --id of `edgeflock-agent install`",
    "--broker": "name it with --broker of `edgeflock-agent install`",
    "--trust": "name it with --trust of `edgeflock-agent install`",
    "--state": "the service's state lies in /var/lib/edgeflock",
}


def check_options(options: Iterable[str], known: Iterable[click.Parameter]) -> None:
    """Refuse what would keep a service from ever starting.

    Args:
        options: for `edgeflock-agent run`, each a word.
        known: its options.

    Raises:
        BadInput: one is none of them, has a value that it does not take, or a unit could not pass it on.
    """
    by_name = {name: parameter for parameter in known for name in parameter.opts}
    tags = []
    for option in options:
        if not re.fullmatch(r"--[^\s\"'\\$]+", option):
            raise BadInput(f"--option {option!r}", "is no option that a unit can pass on", "write --option --threads=4")
        name, equals, value = option.partition("=")
        wrong = _wrong(by_name.get(name), value if equals else None)
        if wrong is not None:
            raise BadInput(f"--option {option!r}", wrong, "see `edgeflock-agent run --help`")
        if name in _OF_THE_UNIT:
            raise BadInput(f"--option {option!r}", "is set by the unit", _OF_THE_UNIT[name])
        if name == "--tag":
            tags.append(value)
        elif name == "--http":
            check_loopback(*host_port(value))
    parse_tags(tags)


def _wrong(parameter: click.Parameter | None, value: str | None) -> str | None:
    """What is wrong with an option and its value, if anything is."""
    if parameter is None:
        return "is none that `edgeflock-agent run` has"
    if getattr(parameter, "is_flag", False):
        return None if value is None else "takes no value"
    if value is None:
        return "has no value"
    if isinstance(parameter.type, click.Path):  # on the board, which may not be this machine
        return None
    try:
        parameter.type.convert(value, parameter, None)
    except click.BadParameter as bad:
        return f"is refused by `edgeflock-agent run` ({bad.message.rstrip('.')})"
    return None


def find_program(prefix: Path | None, root: Path) -> str:
    """The path of `edgeflock-agent` as the service will see it.

    Raises:
        BadInput: it is not there, or lies where a service sees nothing.
    """
    path = (prefix.absolute() if prefix is not None else Path(sys.prefix)) / "bin" / "edgeflock-agent"
    mend = "make a virtual environment in /opt/edgeflock, install edgeflock[agent] there, and run its edgeflock-agent"
    there = root / path.relative_to("/")
    if not there.exists():
        raise BadInput(str(there), "is not there", mend)
    python = _followed(path.with_name("python"), root)
    for part, what in ((path, ""), (python, f"is run by {python}, which ")):
        if any(part.is_relative_to(hidden) for hidden in _HIDDEN):
            wrong = f"{what}lies where the service, which sees no home and no temporary folder, cannot see it"
            raise BadInput(str(path), wrong, mend if part is path else f"{mend}, with a Python below /usr or /opt")
    if any(character.isspace() or character in "%$\"'\\" for character in str(path)):
        raise BadInput(str(path), "has a character that a unit would read otherwise", mend)
    return str(path)


def _followed(path: Path, root: Path) -> Path:
    """Where a path of the board leads, link by link; links lead to places below the board's root."""
    for _ in range(40):  # as many as the kernel follows
        there = root / path.relative_to("/")
        if not there.is_symlink():
            break
        path = Path(os.path.normpath(path.parent / there.readlink()))
    return path


@click.command()
@click.option("--id", "device", required=True, help="This device's id: 1-64 letters, digits, '.', '-', '_'.")
@click.option("--broker", required=True, help="mqtt://HOST:PORT")
@click.option(
    "--trust",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="trust.json of `edgeflock keys init`; it is copied.",
)
@click.option("--option", "options", multiple=True, help="Another option for `edgeflock-agent run`, e.g. --threads=4")
@click.option(
    "--prefix",
    type=click.Path(path_type=Path, file_okay=False),
    help="The virtual environment that the service runs; the one of this command if left out.",
)
@click.option(
    "--root",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("/"),
    show_default=True,
    help="Where the board's file system is, e.g. a mounted image.",
)
@click.option("--dry-run", is_flag=True, help="Show the files, write nothing.")
def install(
    device: str, broker: str, trust: Path, options: tuple[str, ...], prefix: Path | None, root: Path, dry_run: bool
) -> None:
    """Write the systemd service of an agent on this board; running it again changes only what changed.

    Example: sudo /opt/edgeflock/bin/edgeflock-agent install --id pi-1 --broker mqtt://hq:1883 --trust trust.json
    """
    from edgeflock_agent.cli import run

    topics.check_device_id(device)
    parse_broker(broker)
    check_options(options, run.params)
    kept = Trust.read(trust)
    program = find_program(prefix, root)
    wanted = files(device, broker, kept.model_dump_json().encode() + b"\n", program, options)
    if dry_run:
        for file in wanted:
            click.echo(f"# {file.path} ({file.mode:04o})\n{file.content.decode()}")
        return
    for path, written in write(root, wanted):
        click.echo(f"{'wrote' if written else 'kept '} {path}")
    click.echo(
        "\nnext:\n"
        "  sudo systemd-sysusers edgeflock.conf        # makes the user edgeflock\n"
        "  sudo systemctl daemon-reload\n"
        f"  sudo systemctl enable --now {UNIT}\n"
        f"  systemctl status {UNIT}\n"
        f"  sudo {program} status --state /var/lib/edgeflock\n"
        "an application that asks on /run/edgeflock/agent.sock joins the group: sudo usermod -aG edgeflock USER\n"
        f"to take it away again: sudo systemctl disable --now {UNIT}, then remove these files and /var/lib/edgeflock"
    )
