"""What a child's replies say, as values: results of items, blocks of timings, answers, and how a load failed.

Decided here: how a reply's header and bytes become what the rest of the agent works with, and which reason a failed
load has. Pure: what is asked, and when, stands in `runner`.
"""

from __future__ import annotations

from array import array
from typing import Any, Literal, NamedTuple

from edgeflock_agent.children.failures import HardStop, InferenceFailed
from edgeflock_agent.children.frames import Frame
from edgeflock_agent.children.sandbox import Sealed
from edgeflock_agent.children.tensors import Inference, Tensor
from edgeflock_deploy.reasons import Reason

Header = dict[str, Any]
Kind = Literal["classification", "regression"]
Answer = int | tuple[float, ...]


class ItemResult(NamedTuple):
    """One item of the evaluation slice: `correct` for a classification, `squared_error` for a regression.

    `switches`: how often the timed call was interrupted (involuntary context switches). `confidence`: the probability
    of a classification's answer. An application's request has no label: it is neither correct nor wrong.
    """

    latency_ms: float
    answer: Answer
    correct: bool | None
    squared_error: float | None
    switches: int
    confidence: float | None = None


class Judged(NamedTuple):
    """An application's request as a trial looks at it: what it gives, and how that compares; None where it is NaN."""

    inference: Inference
    result: ItemResult | None


class Block(NamedTuple):
    """Latencies of consecutive inferences, how long the child's very first took, and `switches` as in ItemResult."""

    latencies_ms: tuple[float, ...]
    first_inference_ms: float
    switches: int


class Slice(NamedTuple):
    """The evaluation slice that is open: its length and how answers are compared and scored.

    `answer_range`: a regression's smallest and largest target, each the mean of its values.
    """

    items: int
    kind: Kind
    agreement_atol: float | None
    target_variance: float | None
    answer_range: tuple[float, float] | None = None


def sealed(told: list[Any]) -> Sealed:
    """What holds the child."""
    landlock_abi, seccomp, missing = told
    return Sealed(landlock_abi, seccomp, tuple(missing))


def tensors(described: list[list[Any]]) -> tuple[Tensor, ...]:
    """Inputs or outputs as applications see them."""
    return tuple(
        Tensor(name, dtype, tuple(shape), None if limit is None else tuple(limit))
        for name, dtype, shape, limit in described
    )


def opened_slice(header: Header, kind: Kind, agreement_atol: float | None) -> Slice:
    """The evaluation slice that the child has opened."""
    ends = header["answer_range"]
    answer_range = (ends[0], ends[1]) if ends else None
    return Slice(header["items"], kind, agreement_atol, header["target_variance"], answer_range)


def item_result(header: Header) -> ItemResult:
    """What a trial compares, of an item of the slice or of a request that was judged."""
    answer = header["answer"]
    return ItemResult(
        header["latency_ms"],
        tuple(answer) if isinstance(answer, list) else answer,
        header.get("correct"),
        header.get("squared_error"),
        header["switches"],
        header.get("confidence"),
    )


def inference(reply: Frame, outputs: tuple[Tensor, ...]) -> Inference:
    """The answer to one item; `outputs` are the variant's."""
    parts, start = [], 0
    for length in reply.header["lengths"]:
        parts.append(bytes(reply.payload[start : start + length]))
        start += length
    return Inference.of(parts, reply.header, outputs)


def times_ms(reply: Frame) -> tuple[float, ...]:
    """The milliseconds of each run of a block."""
    took_ms = array("d")
    took_ms.frombytes(reply.payload)
    return tuple(took_ms)


def failed_load(error: HardStop | InferenceFailed, *, bounded: bool) -> HardStop:
    """What went wrong, as a failure of the load; under a memory budget a refused allocation is the budget's doing."""
    stop = error if isinstance(error, HardStop) else HardStop(Reason.LOAD_FAILED, str(error))
    # The runtime says in which of its functions a model failed, and one is called AllocateTensors.
    words = stop.detail.lower().replace("allocatetensors", "")
    if bounded and stop.reason in {Reason.LOAD_FAILED, Reason.CRASHED} and "alloc" in words:
        return HardStop(Reason.MEMORY_OVER_BUDGET, stop.detail)
    return HardStop(Reason.LOAD_CRASHED, stop.detail) if stop.reason is Reason.CRASHED else stop
