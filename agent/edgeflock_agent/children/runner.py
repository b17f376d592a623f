"""A loaded variant as the agent sees it: a child process that answers, or a `HardStop` with its reason.

Decided here: which failures blame the variant, and with which reason code. The agent's own process loads no model and
no numpy: it must stay light and must survive every model. This file does not know what a trial or a rollout is.

Thread-safe: requests of an application and of a trial interleave, and each waits for at most one inference.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence, Set
from pathlib import Path
from types import TracebackType
from typing import Any

from edgeflock_agent.children import handed, replies
from edgeflock_agent.children.child_process import ChildProcess
from edgeflock_agent.children.datatypes import DATATYPES
from edgeflock_agent.children.failures import Closed, HardStop, InferenceFailed
from edgeflock_agent.children.form import Form
from edgeflock_agent.children.lending import Back
from edgeflock_agent.children.replies import Answer, Block, ItemResult, Judged, Kind, Slice
from edgeflock_agent.children.tensors import Data, Inference, Shape, Tensor, batch_of, joined, one_by_one
from edgeflock_deploy.reasons import Reason

__all__ = [
    "Answer",
    "Block",
    "Closed",
    "HardStop",
    "Inference",
    "InferenceFailed",
    "ItemResult",
    "Judged",
    "ModelProcess",
    "Slice",
    "Tensor",
]


class ModelProcess:
    """A child process with one model; make it with `start`, and close it.

    After a HardStop with CRASHED or HUNG the child is gone: `alive` is False, `failure` says why, and so does every
    further request.
    """

    def __init__(self, child: ChildProcess, threads: int, loaded: dict[str, Any]) -> None:
        self._child, self.threads = child, threads
        self.inputs, self.outputs = replies.tensors(loaded["inputs"]), replies.tensors(loaded["outputs"])
        self._fixed_shapes = tuple(tensor.shape for tensor in self.inputs)
        fixed = all(-1 not in shape for shape in self._fixed_shapes)
        self._fixed_bytes = [tensor.nbytes for tensor in self.inputs] if fixed else None
        self.load_ms = float(loaded["load_ms"])
        self.takes_sequences = bool(loaded["takes_sequences"])
        self.stateful = bool(loaded["stateful"])  # also without speaking of a sequence: the default one goes on
        self.first_values = int(loaded["first_values"])  # of the file's first output: as many classes as there may be
        self.processed = bool(loaded["processed"])  # the bundle declares steps before or after it
        self.sealed = replies.sealed(loaded["sealed"])
        self._golden: list[dict[str, Any]] = []  # a request for each case
        self.slice: Slice | None = None
        self.slice_path: Path | None = None

    @classmethod
    def start(
        cls,
        model_path: Path,
        *,
        threads: int = 1,
        memory_budget_bytes: int | None = None,
        timeout_s: float = 10.0,
        inference_timeout_s: float | None = None,
        view: dict[str, Any] | None = None,
        labels: Path | None = None,
        start_child: Callable[[float], ChildProcess] = ChildProcess.start,
    ) -> ModelProcess:
        """Start a child, load a model file, whose hash the caller has checked, and run it once on zeros.

        The child is killed when the *thread* that calls this ends (the parent-death signal is per thread): call it from
        one that lives as long as the model should.

        Args:
            model_path: the `.tflite`, which is opened here, for reading; it must stay as it is while the child lives.
            threads: threads of the interpreter.
            memory_budget_bytes: what the model may add to the child's address space and resident memory.
            timeout_s: how long the load may take.
            inference_timeout_s: how long each inference may take later; as long as the load if left out.
            view: what applications see, as `manifest_view.told` says it; None: the file's own tensors.
            labels: the file of labels that the view speaks of.
            start_child: starts the process; takes the seconds that an answer may take.

        Raises:
            HardStop: LOAD_FAILED, OPERATOR_MISSING, MANIFEST_INVALID, LOAD_CRASHED, HUNG or MEMORY_OVER_BUDGET;
                INTERNAL if the child itself did not start.
        """
        limit_s = timeout_s if inference_timeout_s is None else inference_timeout_s
        load = {"op": "load", "name": model_path.name, "threads": threads, "cpu_s": max(timeout_s, limit_s) * threads}
        load |= {"memory_budget_bytes": memory_budget_bytes, "view": view}
        names = b"" if labels is None else handed.labels(labels)
        with handed.opened(model_path, Reason.LOAD_FAILED) as model:
            child = start_child(timeout_s)
            try:
                loaded = child.ask(load, names, files=[model]).header
                unknown = [dtype for _, dtype, *_ in loaded["inputs"] + loaded["outputs"] if dtype not in DATATYPES]
                if unknown:
                    raise HardStop(Reason.LOAD_FAILED, f"tensors of type {unknown[0]} are not supported")
            except (HardStop, InferenceFailed) as error:
                child.close()
                raise replies.failed_load(error, bounded=memory_budget_bytes is not None) from None
        child.timeout_s = limit_s
        process = cls(child, threads, loaded)
        child.share(max(sum(tensor.nbytes for tensor in tensors) for tensors in (process.inputs, process.outputs)))
        return process

    def __enter__(self) -> ModelProcess:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._child.pid

    @property
    def alive(self) -> bool:
        """Whether the child is there to answer."""
        return self._child.alive

    @property
    def failure(self) -> HardStop | None:
        """Why the child is gone, if it crashed or hung."""
        return self._child.failure

    def check_golden(self, path: Path, *, atol: float, rtol: float, steps: int, exact: bool) -> None:
        """Run every golden case and compare.

        Args:
            path: an `.npz` of `cases.write_golden`.
            atol: floats may differ by atol + rtol |want|.
            rtol: see atol.
            steps: integers may differ by so many codes.
            exact: nothing may differ.

        Raises:
            HardStop: GOLDEN_MISMATCH with the first differing case and numbers, NAN_OUTPUT, MANIFEST_INVALID for a file
                that is no golden cases of this model, CRASHED, HUNG.
        """
        tolerance = {"atol": atol, "rtol": rtol, "steps": steps, "exact": exact}
        self._golden = [{"op": "golden_case", "case": case} | tolerance for case in range(self.open_golden(path))]
        self.check_golden_again()

    def check_golden_again(self) -> None:
        """Run the golden cases of the last `check_golden` once more, beside whatever else is asked.

        Raises:
            HardStop: see `check_golden`.
            Closed: the child has been closed.
        """
        try:
            for case in self._golden:
                self._child.ask(case)
        except InferenceFailed as error:
            raise HardStop(Reason.GOLDEN_MISMATCH, f"a golden case did not run: {error}") from None

    def open_golden(self, path: Path) -> int:
        """Open golden cases, and return how many there are; `measure` runs over them until a slice is open.

        Raises:
            HardStop: MANIFEST_INVALID for a file that is no golden cases of this model, CRASHED, HUNG.
        """
        with handed.opened(path, Reason.MANIFEST_INVALID) as file:
            try:
                return int(self._child.ask({"op": "golden"}, files=[file]).header["cases"])
            except InferenceFailed as error:
                raise HardStop(Reason.MANIFEST_INVALID, f"golden cases: {error}") from None

    def open_slice(self, path: Path, *, kind: Kind, agreement_atol: float | None) -> int:
        """Open an evaluation slice, and return how many items it has.

        Args:
            path: an `.npz` of `cases.write_evaluation`.
            kind: what an answer is (see `bundle.Task`).
            agreement_atol: how near two answers of a regression must be to agree.

        Raises:
            HardStop: MANIFEST_INVALID for a file that is no slice for this model, CRASHED, HUNG.
        """
        with handed.opened(path, Reason.MANIFEST_INVALID) as file:
            try:
                reply = self._child.ask({"op": "slice", "kind": kind}, files=[file]).header
            except InferenceFailed as error:
                raise HardStop(Reason.MANIFEST_INVALID, f"evaluation slice: {error}") from None
        self.slice, self.slice_path = replies.opened_slice(reply, kind, agreement_atol), path
        return self.slice.items

    def run_item(self, item: int) -> ItemResult:
        """Run one item of the open slice.

        Raises:
            HardStop: NAN_OUTPUT, CRASHED, HUNG.
            InferenceFailed: the runtime refused this item.
            Closed: the child has been closed.
        """
        return replies.item_result(self._child.ask({"op": "item", "item": item}).header)

    def infer(
        self,
        inputs: Sequence[Data],
        shapes: Sequence[Shape] | None = None,
        sequence: dict[str, Any] | None = None,
    ) -> Inference:
        """Run on raw little-endian tensors, one per input that applications see; a batch item by item.

        Args:
            inputs: the tensors.
            shapes: of each; None where the model leaves nothing open but the batch.
            sequence: `key`, `start` and `end` of a stateful model's sequence; None: the default one goes on.

        Raises:
            ValueError: another number of inputs, shape or number of bytes in one, than the model takes.
            HardStop: CRASHED, HUNG.
            InferenceFailed: the runtime refused it.
            Closed: the child has been closed.
        """
        if shapes is None and [len(data) for data in inputs] == self._fixed_bytes:
            given, items = self._fixed_shapes, 1  # the usual request, which is not looked at any closer
        else:
            given, items = batch_of(self.inputs, inputs, shapes)
        if items > 1 and sequence is not None:
            raise ValueError("a sequence takes one item at a time")
        rows = [(inputs, given)] if items == 1 else one_by_one(inputs, given, items)
        ask, named = {"op": "infer", "sequence": sequence}, self.outputs
        done = [replies.inference(self._child.ask(ask | {"shapes": shape}, row), named) for row, shape in rows]
        return done[0] if items == 1 else joined(done)

    def infer_judged(self, inputs: Sequence[Data]) -> Judged:
        """Run one item as `infer` does, and say what a trial compares: the answer as the open slice's task reads it.

        Raises:
            ValueError, HardStop, InferenceFailed, Closed: see `infer`; a batch is a ValueError.
        """
        shapes, items = batch_of(self.inputs, inputs, None)
        if items != 1:
            raise ValueError("a batch is not judged")
        reply = self._child.ask({"op": "infer", "shapes": shapes, "judged": True}, inputs)
        answer = None if reply.header["answer"] is None else replies.item_result(reply.header)
        return Judged(replies.inference(reply, self.outputs), answer)

    def lend(self, connection: socket.socket, form: Form, wanted: Callable[[], bool]) -> Back:
        """Have the child answer the requests of a connection by itself while they are of one form; see `Lending.lend`.

        Raises:
            Lost: the child ended in the middle of a request.
        """
        return self._child.lending.lend(connection, form, wanted)

    def recall(self) -> None:
        """Have all connections come back; what applications send from now on is not answered by this child."""
        self._child.lending.recall()

    def tell_confidence(self) -> None:
        """From now on have `infer` say how sure the variant is of each answer: for classifications.

        Raises:
            HardStop: CRASHED, HUNG.
        """
        self._child.ask({"op": "tell_confidence"})

    def use_random_inputs(self, *, items: int = 32, seed: int = 0) -> None:
        """Have `measure` run over random inputs of the right type instead of golden or evaluation items."""
        self._child.ask({"op": "random", "items": items, "seed": seed})

    def measure(self, n: int, *, max_ms: float = 1000.0) -> Block:
        """Run n items one after the other (golden, evaluation or random ones, in turn), but no longer than max_ms.

        Raises:
            HardStop: CRASHED, HUNG, MEMORY_OVER_BUDGET.
            InferenceFailed: the runtime refused an item, or there are none.
            Closed: the child has been closed.
        """
        reply = self._child.ask({"op": "block", "n": n, "max_ms": max_ms}, extra_s=max_ms / 1000)
        return Block(replies.times_ms(reply), reply.header["first_inference_ms"], reply.header["switches"])

    def measure_end_to_end(self, n: int, *, max_ms: float = 1000.0, first: int = 0) -> tuple[float, ...]:
        """Milliseconds of whole requests, one item each, with the processing that the bundle declares; see `measure`.

        `first` is the number of the item to begin with.

        Raises:
            HardStop: CRASHED, HUNG, MEMORY_OVER_BUDGET.
            InferenceFailed: an item could not be run.
            Closed: the child has been closed.
        """
        ask = {"op": "through", "n": n, "max_ms": max_ms, "first": first}
        return replies.times_ms(self._child.ask(ask, extra_s=max_ms / 1000))

    def beat(self, idle_s: float) -> None:
        """Ask a child that answered nothing for so long; one that is silent is gone afterwards, as after any HUNG."""
        self._child.beat(idle_s)

    def pin(self, cpus: Set[int]) -> None:
        """Have a model of one thread run on these CPUs only."""
        self._child.pin(cpus)

    def close(self) -> None:
        """End the child after the request that it is answering. Closing twice is harmless."""
        self._child.close()
