"""The inference child: one model in a process of its own, spoken to in frames over stdin and stdout.

`python -m edgeflock_agent.children.child PARENT_PID FILES`; FILES is the socket, by its descriptor, that brings files.
Decided here: how a model is loaded, and what an application's request gets. One request is answered at a time, each
with at most one inference (a block of them for `block` and `through`, bounded in time), so that a waiting request never
waits long. Golden cases and the evaluation slice are `own_items`'; what the answers mean for a deployment is decided in
`runner`.

A model is somebody else's program: what the child may do is decided in `sandbox`. It opens no file by its name: the
model, golden cases and evaluation slices come as open descriptors with the request (`fd`). It ends with its parent (the
parent-death signal is tied to the *thread* that started it) and at the end of its input. What
libraries print on stdout goes to stderr.

A reply is the result of the operation, or `{"stop": reason, "detail": …}` when the variant misbehaved, or `{"error":
text}` when this one request failed.
"""

from __future__ import annotations

import contextlib
import gc
import io
import itertools
import os
import resource
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeflock_agent.children import lent, sandbox
from edgeflock_agent.children.again import again
from edgeflock_agent.children.answering import Answering, as_it_is
from edgeflock_agent.children.checks import Stop, is_numbers
from edgeflock_agent.children.confidence import top_probability
from edgeflock_agent.children.frames import BadFrame, Channel, Data, End, Ended
from edgeflock_agent.children.interpreters import Interpreters
from edgeflock_agent.children.loading import load_and_run, loads_with_more_memory
from edgeflock_agent.children.own_items import OwnItems
from edgeflock_agent.children.random_inputs import RandomInputs
from edgeflock_agent.children.timed_runs import TimedRuns, one_after_another
from edgeflock_deploy import runtime
from edgeflock_deploy.cases import Evaluation, Golden, read_evaluation, read_golden, write_evaluation, write_golden
from edgeflock_deploy.errors import Untrusted
from edgeflock_deploy.heap import give_back_freed
from edgeflock_deploy.operators import hidden_state, missing_operator
from edgeflock_deploy.reasons import Reason
from edgeflock_deploy.runtime import LoadedModel, LoadFailed

Array = NDArray[Any]
Payload = bytearray | memoryview
Answer = tuple[dict[str, Any], Sequence[Data]]
Reply = tuple[dict[str, Any], Data | Sequence[Data]]

_TELLING_BYTES = 256 << 20  # address space in which a load is tried again, to tell a small budget from a bad file
_WARM_MODEL = Path(runtime.__file__).with_name("warm.tflite")


class Child:
    """The model and what an application asks of it; what is done with items of our own is in `own_items`."""

    def __init__(self) -> None:
        self._runs: TimedRuns | None = None
        self._own: OwnItems | None = None
        self._answering: Answering | None = None  # None: an application's bytes are the model's
        self._takes: list[tuple[np.dtype[Any], tuple[int, ...], int]] = []  # type, shape and bytes of each input
        self._tells_confidence = False
        self._cpu_s = 0.0  # processor time that a request may take
        self._status = os.open("/proc/self/status", os.O_RDONLY)  # opened now: later nothing is
        self._board_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGESIZE")
        self.operations: dict[str, Callable[[dict[str, Any], Payload], Reply]] = {
            "beat": self._beat,
            "load": self._load,
            "through": self._through,
            "infer": self._infer,
            "tell_confidence": self._tell_confidence,
        }
        """What can be asked; the operations on items of our own join them when a model is loaded."""

    @property
    def runs(self) -> TimedRuns:
        """Runs of the model; `load` comes first."""
        assert self._runs is not None, "no model is loaded"
        return self._runs

    @property
    def own(self) -> OwnItems:
        """The items of our own; `load` comes first."""
        assert self._own is not None, "no model is loaded"
        return self._own

    def answer(self, header: dict[str, Any], payload: Payload) -> Reply:
        """Do one operation; whatever goes wrong becomes a reply."""
        try:
            if self._cpu_s:
                sandbox.allow_cpu(self._cpu_s + header.get("max_ms", 0.0) / 1e3)
            return self.operations[header["op"]](header, payload)
        except Stop as stop:
            return {"stop": stop.reason.value, "detail": stop.detail}, b""
        except Untrusted as error:
            return {"stop": error.reason.value, "detail": error.detail}, b""
        except MemoryError:
            return {"stop": Reason.MEMORY_OVER_BUDGET.value, "detail": "an allocation was refused"}, b""
        except Exception as error:  # whatever it is, the parent hears of it
            return {"error": " ".join(f"{type(error).__name__}: {error}".split())}, b""

    def _beat(self, _header: dict[str, Any], _: Payload) -> Reply:
        return {}, b""

    def _load(self, header: dict[str, Any], labels: Payload) -> Reply:
        file, threads, budget = header["fd"], header["threads"], header["memory_budget_bytes"]
        sealed, path = sandbox.seal([file]), sandbox.by_descriptor(file)
        state = hidden_state(path)  # it maps the file, which is not the model's doing: before the limit
        rss = self._own_memory("VmRSS")
        size = self._own_memory("VmSize") + sandbox.stacks_bytes(threads)
        if budget is None:  # no model needs more than the board has: refused, it fails alone and not the whole board
            resource.setrlimit(resource.RLIMIT_AS, (size + self._board_bytes, size + self._board_bytes))
        else:
            resource.setrlimit(resource.RLIMIT_AS, (size + budget, size + max(4 * budget, _TELLING_BYTES)))
        self._cpu_s = header["cpu_s"]
        sandbox.allow_cpu(self._cpu_s)
        try:
            model, load_ms, first_ms = load_and_run(path, threads)
        except LoadFailed as error:
            detail = f"{header['name']}: {error.detail.partition(': ')[2]}"
            if (operator := missing_operator(error.detail, path)) is not None:
                raise Stop(Reason.OPERATOR_MISSING, f"this runtime has no operator {operator}: {detail}") from None
            if budget is not None and loads_with_more_memory(path, threads):
                raise Stop(Reason.MEMORY_OVER_BUDGET, f"{budget} bytes are not enough: {detail}") from None
            raise Stop(Reason.LOAD_FAILED, detail) from None
        if budget is not None and (over := self._own_memory("VmRSS") - rss - budget) > 0:
            raise Stop(Reason.MEMORY_OVER_BUDGET, f"the loaded model is {over} bytes over its budget")
        again = sandbox.by_descriptor(os.dup(file))  # it may be loaded again later
        runs = self._runs = TimedRuns(Interpreters(model, again, threads, state))
        self._own = OwnItems(runs, first_ms)
        self.operations |= self._own.operations
        if budget is not None:  # cases and requests come on top of what the model itself may take
            hard = resource.getrlimit(resource.RLIMIT_AS)[1]
            resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
        types = [(np.dtype(info.dtype), info.shape) for info in model.inputs]
        self._takes = [(dtype, shape, int(np.prod(shape)) * dtype.itemsize) for dtype, shape in types]
        gc.collect()
        gc.freeze()  # what is loaded stays; a collection in the middle of a timing need not look at it
        told = header["view"] or as_it_is(model)
        answering = Answering(told, bytes(labels), runs.interpreters, runs.run, self._remarks)
        self._answering = None if answering.is_simple else answering
        give_back_freed()
        tensors = {side: _described(told[side]) for side in ("inputs", "outputs")}
        return tensors | {"load_ms": load_ms, "sealed": sealed} | answering.told_of_model, b""

    def _through(self, header: dict[str, Any], _: Payload) -> Reply:
        """Whole requests, from an application's bytes to the answer's: what `block` is for the call alone."""
        inside, items, drawn = self.runs.interpreters.inside, self.own.items, RandomInputs(0)
        assert inside is None or not inside.in_use, "an application's sequence is running"
        numbers = itertools.count(header["first"])

        def once() -> float:
            item = items[next(numbers) % len(items)]
            if self._answering is None:
                asked: dict[str, Any] = {}
                request = b"".join(value.tobytes() for value in item)
            else:
                asked, request = self._answering.as_asked(item, drawn)
            took_ms: float = self._infer(asked, bytearray(request))[0]["end_to_end_ms"]
            return took_ms

        return {}, one_after_another(header["n"], header["max_ms"], once).tobytes()

    def _infer(self, header: dict[str, Any], payload: Payload) -> Answer:
        begun, runs = time.perf_counter_ns(), self.runs
        runs.take_switches()
        if self._answering is not None:
            return self._answering.infer(header, payload)
        given = self._arrays(payload)
        latency_ms = runs.run(given)
        answer = runs.interpreters.model.outputs_now()
        outputs = [np.ascontiguousarray(output).reshape(-1).view(np.uint8).data for output in answer]
        times = {"latency_ms": latency_ms, "end_to_end_ms": (time.perf_counter_ns() - begun) / 1e6}
        return times | self._remarks(header, given, answer) | {"lengths": [len(output) for output in outputs]}, outputs

    def allow_cpu(self) -> None:
        """A further request may take its processor time."""
        sandbox.allow_cpu(self._cpu_s)

    def prepared(self, header: dict[str, Any], payload: memoryview) -> lent.Run:
        """What runs the model on tensors that will lie in this memory; None where it is not as simple as that."""
        if self._answering is None:
            return again(self.runs.interpreters.model, self._arrays(payload))

        def run() -> lent.Done | None:
            try:
                told, outputs = self._infer(header, payload)
            except Exception:  # the agent asks for it again, and hears what is wrong
                return None
            return None if told.get("nan") else lent.Done(told["latency_ms"], told["end_to_end_ms"], outputs)

        return run

    def _arrays(self, payload: Payload) -> tuple[Array, ...]:
        """An application's bytes as the model's inputs, not copied."""
        given, start, view = [], 0, memoryview(payload)
        for dtype, shape, length in self._takes:
            given.append(np.frombuffer(view[start : start + length], dtype).reshape(shape))
            start += length
        return tuple(given)

    def _remarks(self, header: dict[str, Any], given: Sequence[Array], answer: Sequence[Array]) -> dict[str, Any]:
        """What is to be told of an answer beside it, from what the model's own tensors held."""
        remarks = self.own.judged(answer) if header.get("judged") else {}
        if not all(map(is_numbers, answer)) and all(map(is_numbers, given)):
            remarks["nan"] = True  # NaN that went in may come out: that is the application's doing
        if self._tells_confidence:
            remarks["confidence"] = top_probability(self.runs.interpreters.model.outputs[0], answer[0])
        return remarks

    def _tell_confidence(self, _: dict[str, Any], __: Payload) -> Reply:
        self._tells_confidence = True
        return {}, b""

    def _own_memory(self, field: str) -> int:
        for line in os.pread(self._status, 1 << 16, 0).decode().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024
        raise OSError(f"/proc/self/status has no {field}")


def _described(tensors: Sequence[dict[str, Any]]) -> list[list[Any]]:
    return [[one["name"], one["dtype"], one["shape"], one["limit"]] for one in tensors]


def rehearse() -> None:
    """Do once what is done later: the runtime's libraries and Python's modules are loaded, while files can be opened.

    None of it is then charged to the model's load time or its budget either.
    """
    warm = LoadedModel.load(_WARM_MODEL)
    ones = tuple(np.ones(info.shape, info.dtype) for info in warm.inputs)
    warm.run(*ones)
    read_golden(io.BytesIO(write_golden(Golden(ones, ones))))
    read_evaluation(io.BytesIO(write_evaluation(Evaluation(ones, ones[0]))))
    with contextlib.suppress(Untrusted):
        read_golden(io.BytesIO(b"no archive"))
    for info in warm.inputs:
        RandomInputs(0).tensor(info.dtype, info.shape)
    f"{np.float64(1.5):.6g} {OSError(2, os.strerror(2))}".encode()


def main() -> None:
    """Serve frames until the parent closes its end."""
    end = End(os.dup(0), os.dup(1), int(sys.argv[2]))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    sandbox.enter(int(sys.argv[1]), (0, 1, 2, *end))
    rehearse()
    serve(end)


def serve(end: End) -> None:
    """Answer what comes to this end until the other one is closed; `rehearse` comes first."""
    channel = Channel(end, child=True, mapping=sandbox.allow_address_space)
    child = Child()
    desk = lent.Desk(end.reader, child, sandbox.allow_address_space)
    child.operations["lend"] = desk.lend
    channel.send({"ready": True})
    while True:
        try:
            desk.answer_until_asked()
            request = channel.receive()
            given = {"fd": request.files[0], "files": request.files} if request.files else {}
            channel.send(*child.answer(request.header | given, request.payload))
            for file in request.files:
                os.close(file)  # a loaded model is mapped, and needs its descriptor no more
        except Ended:
            desk.give_all_back()
            return
        except BadFrame as error:
            sys.exit(f"edgeflock_agent.children.child: {error}")


if __name__ == "__main__":
    main()
