"""A real agent and a real broker: a form that does not fit gives way, and what holds serves over every restart."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pytest

from edgeflock_agent.storage.disk import Disk
from edgeflock_agent.storage.record import AgentRecord, RecordFile
from edgeflock_deploy import topics
from edgeflock_deploy.bundle import (
    EncodedBlob,
    Form,
    Limits,
    Manifest,
    Task,
    TensorSpec,
    Tolerance,
    encode_blob,
    seal_manifest,
    split,
)
from edgeflock_deploy.cases import Golden, write_golden
from edgeflock_deploy.messages.orders import Phase
from edgeflock_deploy.messages.reports import AgentEvent, ReportedModel
from edgeflock_deploy.messages.values import DeviceState, Outcome
from edgeflock_deploy.messages.windows import Window
from edgeflock_deploy.reasons import Reason
from edgeflock_deploy.runtime import LoadedModel
from edgeflock_deploy.runtime_name import runtime_name

if TYPE_CHECKING:
    from tests.integration.agent.conftest import Board, Headquarters

DATA = Path(__file__).parents[2] / "data"
S = DeviceState


class Shape(NamedTuple):
    """A form to publish: a tiny model's file, and what is wrong with it."""

    variant: str
    file: str = "tiny.tflite"
    wrong_golden: bool = False
    padding: int = 0


FITS, OTHER = Shape("fits", "tiny_other.tflite"), Shape("other")
BROKEN = Shape("broken", "corrupt.tflite")
DIFFERS = Shape("differs", wrong_golden=True, padding=300_000)
NAN = Shape("nan", "tiny_nan.tflite")
LACKS = Shape("lacks", "tiny_custom.tflite")  # an operator that no runtime here has
_RUN_HERE = ("tiny.tflite", "tiny_other.tflite", "tiny_slow.tflite")
SLOW = Shape("slow", "tiny_slow.tflite")


class Chain(NamedTuple):
    """A bundle as it was published, and its blobs decoded."""

    digest: str
    envelope: bytes
    manifest: Manifest
    raw: dict[str, bytes]


def publish(hq: Headquarters, *shapes: Shape, version: int = 2, limits: Limits | None = None) -> Chain:
    """Publish a bundle of these forms, retained."""
    made = [_form(shape) for shape in shapes]
    items = (DATA / "tiny_evaluation.npz").read_bytes()
    evaluation = encode_blob(items)
    (first, _), *others = made
    own = {name: getattr(first, name) for name in Form.model_fields}
    manifest = Manifest(
        **(own | {"blobs": {**first.blobs, "evaluation": evaluation.blob}}),
        model="digits",
        version=version,
        task=Task(kind="classification", metric="accuracy"),
        fallbacks=tuple(form for form, _ in others),
        limits=limits or Limits(),
    )
    blobs = [(evaluation, items), *(blob for _, blobs in made for blob in blobs)]
    for encoded, _ in blobs:
        for number, chunk in enumerate(split(encoded.container)):
            hq.link.publish(topics.chunk(encoded.blob.encoding.sha256, number), bytes(chunk), retain=True)
    sealed = seal_manifest(manifest, hq.publish_key)
    hq.link.publish(topics.manifest(sealed.digest), sealed.envelope, retain=True)
    return Chain(*sealed, manifest, {encoded.blob.sha256: data for encoded, data in blobs})


def _form(shape: Shape) -> tuple[Form, list[tuple[EncodedBlob, bytes]]]:
    runs = LoadedModel.load(DATA / (shape.file if shape.file in _RUN_HERE else "tiny.tflite"))
    inputs = np.random.default_rng(0).normal(size=(4, *runs.inputs[0].shape[1:])).astype("float32")
    outputs = np.stack([runs.run(item[None])[0][0] for item in inputs]) + float(shape.wrong_golden)
    raw = (DATA / shape.file).read_bytes() + os.urandom(shape.padding), write_golden(Golden((inputs,), (outputs,)))
    model, golden = map(encode_blob, raw)
    form = Form(
        variant=shape.variant,
        blobs={"model": model.blob, "golden": golden.blob},
        inputs=tuple(TensorSpec(name=t.name, dtype=t.dtype, shape=t.shape) for t in runs.inputs),
        outputs=tuple(TensorSpec(name=t.name, dtype=t.dtype, shape=t.shape) for t in runs.outputs),
        tolerance=Tolerance(runtime=runtime_name()),
    )
    return form, list(zip((model, golden), raw, strict=True))


def install(hq: Headquarters, board: Board, *options: str) -> str:
    """The board runs a first bundle of one form."""
    digest = publish(hq, OTHER, version=1).digest
    board.start(*options)
    hq.want(board.device, Phase.COMMIT, digest, 1, rollout="first")
    done = hq.wait_done(1)
    assert (done.outcome, done.variant, done.tried) == (Outcome.SUCCEEDED, "other", ())
    return digest


def in_trial(hq: Headquarters) -> Callable[[ReportedModel], bool]:
    return lambda model: model.state is S.TRIAL and model.generation == 2


def why(said: ReportedModel) -> list[tuple[str, Reason]]:
    return [(one.variant, one.reason) for one in said.tried]


def blobs_on(board: Board) -> set[str]:
    return {path.name for path in (board.state / "blobs").iterdir()}


def test_forms_that_do_not_load_or_answer_otherwise_give_way_to_one_that_fits_which_is_tried_and_committed(
    hq: Headquarters, board: Board
) -> None:
    old = install(hq, board)
    new, _, manifest, _ = publish(hq, LACKS, BROKEN, DIFFERS, NAN, FITS)
    hq.want(board.device, Phase.TRIAL, new, 2)
    said = hq.wait_reported("the trial", in_trial(hq))
    assert (said.digest, said.variant, said.candidate, said.candidate_variant) == (old, "other", new, "fits")
    assert why(said) == [
        ("lacks", Reason.OPERATOR_MISSING),
        ("broken", Reason.LOAD_FAILED),
        ("differs", Reason.GOLDEN_MISMATCH),
        ("nan", Reason.NAN_OUTPUT),
    ]
    hq.wait("a window", lambda m: isinstance(m, Window))
    hq.want(board.device, Phase.COMMIT, new, 3)
    done = hq.wait_done(3)
    assert (done.outcome, done.digest, done.variant) == (Outcome.SUCCEEDED, new, "fits")
    assert why(done) == why(said)
    answered = board.infer()["parameters"]
    assert (answered["digest"], answered["variant"]) == (new, "fits")
    given_way = [e for e in hq.events() if e.rollout == "r1" and e.reason is not None]
    assert {(e.before, e.after) for e in given_way} == {(S.WARMING, S.DOWNLOADING)}
    assert [(e.detail or "").split()[0] for e in given_way] == ["lacks", "broken", "differs", "nan"]
    assert (given_way[2].detail or "").startswith("differs does not fit: golden case 0, output 0")
    assert (given_way[2].detail or "").endswith("; nan is next")

    needed = {blob.sha256 for blob in manifest.as_form(4).blobs.values()}
    assert needed <= blobs_on(board)
    assert not {form.blobs["model"].sha256 for form in manifest.forms[:4]} & blobs_on(board)
    status = [sys.executable, "-m", "edgeflock_agent.cli", "status", "--state", str(board.state)]
    shown = subprocess.run(status, capture_output=True, text=True, check=True).stdout
    assert f"active    {new[:12]}  version 2  fits" in shown
    assert "differs did not fit: GOLDEN_MISMATCH: golden case 0" in shown

    board.end(signal.SIGKILL)
    hq.wait_online(False)
    mark = len(hq.said)
    board.start()
    again = hq.wait_reported("it serves again", lambda m: m.digest == new, mark)
    assert (again.variant, why(again)) == ("fits", why(said))
    answered = board.infer()["parameters"]
    assert (answered["digest"], answered["variant"]) == (new, "fits")


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (Limits(memory_bytes=1_000_000), Reason.MEMORY_OVER_BUDGET),  # slow takes 1.8 MB, fits 0.2
        (Limits(latency_ms_p95=0.1), Reason.TOO_SLOW),  # a hundred times what fits takes, half of what slow does
    ],
    ids=["memory", "latency"],
)
def test_a_form_above_what_was_declared_gives_way(
    hq: Headquarters, board: Board, limits: Limits, reason: Reason
) -> None:
    install(hq, board)
    hq.want(board.device, Phase.TRIAL, publish(hq, SLOW, FITS, limits=limits).digest, 2)
    said = hq.wait_reported("the trial", in_trial(hq))
    assert (said.candidate_variant, why(said)) == ("fits", [("slow", reason)])


def test_when_no_form_fits_the_incumbent_serves_on_and_every_reason_is_told(hq: Headquarters, board: Board) -> None:
    old = install(hq, board)
    new = publish(hq, BROKEN, DIFFERS, NAN).digest
    hq.want(board.device, Phase.TRIAL, new, 2)
    done = hq.wait_done(2)
    assert (done.state, done.outcome, done.reason) == (S.FAILED, Outcome.FAILED, Reason.NAN_OUTPUT)
    assert (done.digest, done.candidate, done.variant) == (old, None, "other")
    assert [variant for variant, _ in why(done)] == ["broken", "differs", "nan"]
    for words in ("no form fits: broken: LOAD_FAILED (", "differs: GOLDEN_MISMATCH (", "nan: NAN_OUTPUT ("):
        assert words in (done.detail or "")
    assert board.infer()["parameters"]["digest"] == old


@pytest.mark.parametrize("state", [S.DOWNLOADING, S.WARMING, S.TRIAL])
def test_an_agent_killed_in_the_middle_of_the_chain_goes_on_with_the_form_in_hand(
    hq: Headquarters, board: Board, state: DeviceState
) -> None:
    install(hq, board)
    new = publish(hq, DIFFERS, Shape("second", "tiny_other.tflite", padding=600_000)).digest
    hq.want(board.device, Phase.TRIAL, new, 2)

    def gave_way_and_came_to_it(message: object) -> bool:
        mine = isinstance(message, AgentEvent) and message.rollout == "r1" and message.after is state
        return mine and any(e.before is S.WARMING and e.after is S.DOWNLOADING for e in hq.events())

    hq.wait(f"{state} with the second form", gave_way_and_came_to_it)
    board.end(signal.SIGKILL)
    record = RecordFile(board.state, Disk()).read()
    assert isinstance(record, AgentRecord)
    # The event leaves before the record is written: then the kill came while the first form was still in hand.
    form = record.models["digits"].form_of(new)
    hq.wait_online(False)
    mark = len(hq.said)
    board.start()
    hq.wait("a window", lambda m: isinstance(m, Window), mark)
    hq.want(board.device, Phase.COMMIT, new, 3)
    done = hq.wait_done(3, mark)
    assert (done.outcome, done.variant, why(done)) == (
        Outcome.SUCCEEDED,
        "second",
        [("differs", Reason.GOLDEN_MISMATCH)],
    )
    # Events that may not have arrived before the kill are sent again.
    known = {(m.boot_id, m.seq) for m in hq.said[:mark]}
    after = [e for e in hq.said[mark:] if isinstance(e, AgentEvent) and (e.boot_id, e.seq) not in known]
    tried_again = [e.reason for e in after if e.reason is not None]
    assert tried_again == ([] if form == 1 else [Reason.GOLDEN_MISMATCH])


def test_a_form_that_loads_no_more_after_a_restart_gives_way_and_the_next_one_comes(
    hq: Headquarters, board: Board
) -> None:
    before = publish(hq, FITS, OTHER, version=1)
    board.start()
    hq.want(board.device, Phase.COMMIT, before.digest, 1)
    assert hq.wait_done(1).variant == "fits"
    board.end()
    # As a new runtime would have it: the form that this board ran as is computed otherwise now.
    after = publish(hq, DIFFERS, OTHER, version=1)
    _replace_bundle(board, before, after)
    mark = len(hq.said)
    board.start()
    said = hq.wait_reported("the next form", lambda m: m.variant == "other" and m.outcome is not None, mark)
    assert (said.digest, said.outcome) == (after.digest, Outcome.SUCCEEDED)
    assert why(said) == [("differs", Reason.GOLDEN_MISMATCH)]
    assert board.infer()["parameters"]["digest"] == after.digest


def _replace_bundle(board: Board, before: Chain, after: Chain) -> None:
    """Have the folder hold another bundle in the place of one, as if that had been ordered and committed then."""
    record = RecordFile(board.state, Disk())
    found = record.read()
    assert found is not None
    text = found.model_dump_json().replace(before.digest, after.digest).replace('"fits"', '"differs"')
    record.write(AgentRecord.model_validate_json(text))
    (board.state / "manifests" / after.digest).write_bytes(after.envelope)
    for blob in after.manifest.as_form(0).blobs.values():
        (board.state / "blobs" / blob.sha256).write_bytes(after.raw[blob.sha256])
