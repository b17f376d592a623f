"""`edgeflock-agent captures`: list, export and clear the inputs that an agent keeps, from its state folder.

It reads files only, while the agent runs or not. Nothing leaves the board by it but what its owner exports.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeflock_agent.serving.capture import captures_folder
from edgeflock_agent.state_folder import DEFAULT_STATE
from edgeflock_agent.storage import ring
from edgeflock_agent.storage.captured import Captured, read_captured
from edgeflock_agent.storage.disk import Disk
from edgeflock_deploy.errors import BadInput

if TYPE_CHECKING:
    from numpy.typing import NDArray

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
    shape = kept[-1].about.inputs
    alike = [one for one in kept if [t.shape for t in one.about.inputs] == [t.shape for t in shape]]
    alike = [one for one in alike if [t.dtype for t in one.about.inputs] == [t.dtype for t in shape]]
    write_npz(file, alike)
    left = len(kept) - len(alike)
    click.echo(f"{len(alike)} inputs in {file}" + (f"; {left} of another type or shape left out" if left else ""))


@captures.command()
@_STATE
def clear(state: Path) -> None:
    """Remove all kept inputs.

    Example: edgeflock-agent captures clear --state /var/lib/edgeflock
    """
    click.echo(f"{ring.clear(captures_folder(state.expanduser()), Disk())} removed")


def read_all(state: Path) -> list[Captured]:
    """What a state folder keeps, oldest first.

    Raises:
        BadInput: there is no such folder.
    """
    state = state.expanduser()
    if not state.is_dir():
        raise BadInput(f"state folder {state}", "is not there", "name the agent's folder with --state")
    read = (read_captured(item) for _, item in ring.items(captures_folder(state)))
    return [one for one in read if one is not None]


def write_npz(file: Path, kept: Sequence[Captured]) -> None:
    """Write kept inputs of the same types and shapes; the arrays stand in `export`."""
    import numpy as np

    arrays: dict[str, NDArray[Any]] = {}
    for number, tensor in enumerate(kept[0].about.inputs):
        name = "x" if len(kept[0].about.inputs) == 1 else f"x_{number}"
        dtype = np.dtype(tensor.dtype).newbyteorder("<")
        shape = tensor.shape[1:] if tensor.shape[:1] == (1,) else tensor.shape  # the batch of 1 gives way to the items
        arrays[name] = np.stack([np.frombuffer(one.data[number], dtype).reshape(shape) for one in kept])
    about = [one.about for one in kept]
    arrays["at_s"] = np.array([one.at_s for one in about], "float64")
    arrays["confidence"] = np.array([np.nan if one.confidence is None else one.confidence for one in about], "float64")
    for field in ("digest", "candidate"):
        arrays[field] = np.array([str(getattr(one, field) or "") for one in about])
    arrays["why"] = np.array([one.why.value for one in about])
    for field in ("answer", "candidate_answer"):
        arrays[field] = np.array([json.dumps(getattr(one, field)) for one in about])
    try:
        with file.open("wb") as stream:
            np.savez(stream, allow_pickle=False, **arrays)
    except OSError as error:
        raise BadInput(str(file), f"cannot be written ({error.strerror})", "name another file") from None


def _words(one: Captured) -> str:
    about = one.about
    if about.candidate is None:
        return f"confidence {about.confidence:.2f}" if about.confidence is not None else about.why.value
    return f"says {about.answer}, {about.candidate[:12]} says {about.candidate_answer}"
