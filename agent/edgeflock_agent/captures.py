"""`edgeflock-agent captures`: list, export and clear the inputs that an agent keeps, from its state folder.

It reads files only, while the agent runs or not. Nothing leaves the board by it.
"""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path

import click

from edgeflock_agent.state_folder import DEFAULT_STATE
from edgeflock_agent.storage import ring
from edgeflock_agent.storage.disk import Disk
from edgeflock_agent.storage.store import CAPTURES
from edgeflock_deploy.captured import Captured, read_captured
from edgeflock_deploy.errors import BadInput

_STATE = click.option(
    "--state",
    type=click.Path(path_type=Path, file_okay=False),
    default=DEFAULT_STATE,
    show_default=True,
    help="State folder of the agent.",
)


@click.group()
def captures() -> None:
    """Look at the inputs that an agent keeps with --capture-mb, take them along, remove them."""


@captures.command("list")
@_STATE
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_(state: Path, as_json: bool) -> None:
    """Print what is kept, oldest first: when, which model and variant, and why.

    Example: edgeflock-agent captures list --state /var/lib/edgeflock
    """
    kept = read_all(state)
    if as_json:
        click.echo(json.dumps([one.about.model_dump(mode="json") for one in kept], indent=2))
        return
    for one in kept:
        at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(one.about.at_s))
        click.echo(f"{at}  {one.about.model}  {one.about.digest[:12]}  {_words(one)}")
    click.echo(f"{len(kept)} input{'' if len(kept) == 1 else 's'} kept")


@captures.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@_STATE
@click.option("--model", help="Which model's inputs; may be left out where all are one model's.")
def export(file: Path, state: Path, model: str | None) -> None:
    """Write a model's kept inputs to an .npz, oldest first.

    Arrays: `x` (`x_0`, `x_1`, ... for several inputs) with the items along axis 0, and beside them `at_s`, `why`,
    `digest`, `confidence` (NaN where there is none), `candidate`, `answer` and `candidate_answer` (JSON).

    Example: edgeflock-agent captures export unsure.npz --model digits
    """
    kept = read_all(state)
    names = sorted({one.about.model for one in kept})
    if model is None and len(names) > 1:
        raise BadInput("captures", f"are of the models {', '.join(names)}", "choose one with --model")
    kept = [one for one in kept if model in (None, one.about.model)]
    if not kept:
        raise BadInput(f"model '{model}'" if model else "captures", "has no kept inputs", "see `captures list`")
    from edgeflock_deploy.captured_npz import write_npz

    click.echo(write_npz(file, kept))


@captures.command()
@_STATE
def clear(state: Path) -> None:
    """Remove all kept inputs.

    Example: edgeflock-agent captures clear --state /var/lib/edgeflock
    """
    click.echo(f"{ring.clear(_folder(state), Disk())} removed")


def read_all(state: Path) -> list[Captured]:
    """What a state folder keeps, oldest first.

    Raises:
        BadInput: there is no such folder, or what lies there is not for this user's eyes.
    """
    read = (read_captured(item) for _, item in ring.items(_folder(state)))
    return [one for one in read if one is not None]


def _folder(state: Path) -> Path:
    """Where the inputs lie, if any are kept; a folder that may not be listed looks like an empty one otherwise."""
    state = state.expanduser()
    try:
        if not state.is_dir():
            raise BadInput(f"state folder {state}", "is not there", "name the agent's folder with --state")
        with contextlib.suppress(FileNotFoundError):
            next((state / CAPTURES).iterdir(), None)
    except PermissionError:
        mend = "ask as that user, or as root (sudo); the agent's group does not do"
        raise BadInput(f"inputs kept under {state}", "are for the eyes of the agent's own user", mend) from None
    return state / CAPTURES


def _words(one: Captured) -> str:
    about = one.about
    if about.candidate is None:
        return f"confidence {about.confidence:.2f}" if about.confidence is not None else about.why.value
    return f"says {about.answer}, {about.candidate[:12]} says {about.candidate_answer}"
