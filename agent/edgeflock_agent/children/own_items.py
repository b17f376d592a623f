"""Items of our own in the child: golden cases, the evaluation slice, random inputs, and blocks of them to be timed.

Decided here: how the items of a bundle become the model's inputs, and what is told of each run of one. Files come as
open descriptors in the header (`fd`). What the numbers mean for a deployment is decided in `runner`; what applications
ask is answered in `child`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeflock_agent.children.checks import compare, is_numbers, refuse_nan
from edgeflock_agent.children.confidence import top_probability
from edgeflock_agent.children.random_inputs import RandomInputs
from edgeflock_agent.children.timed_runs import Item, TimedRuns, one_after_another
from edgeflock_deploy.cases import Evaluation, Golden, read_evaluation, read_golden
from edgeflock_deploy.errors import Untrusted
from edgeflock_deploy.operators import State
from edgeflock_deploy.reasons import Reason
from edgeflock_deploy.runtime import LoadedModel
from edgeflock_deploy.scoring import answers, variance

Array = NDArray[Any]
Payload = bytearray | memoryview
Told = dict[str, Any]


_MOST_VALUES = 4096  # of a regression's answer that are told: an image of them would be longer than a frame's header


class OwnItems:
    """The items of one model, and one operation for each thing that is done with them.

    Args:
        runs: of the model.
        first_ms: what its very first inference took.
    """

    def __init__(self, runs: TimedRuns, first_ms: float) -> None:
        self._runs, self._first_ms = runs, first_ms
        self._golden: Golden | None = None
        self._slice: Evaluation | None = None
        self._kind: Any = "classification"
        self._next_item = 0
        self.items: list[Item] = []  # what `block` runs over, in turn
        self.operations: dict[str, Callable[[Told, Payload], tuple[Told, bytes]]] = {
            "golden": self._open_golden,
            "golden_case": self._golden_case,
            "slice": self._open_slice,
            "item": self._item,
            "random": self._random,
            "block": self._block,
        }

    @property
    def _model(self) -> LoadedModel:
        return self._runs.interpreters.model

    def judged(self, outputs: Sequence[Array]) -> Told:
        """What a trial wants to know of an application's request beside its outputs; of NaN, no answer."""
        switches = {"switches": self._runs.take_switches()}
        return switches | (self._answered(outputs[0]) if all(map(is_numbers, outputs)) else {"answer": None})

    def _answered(self, output: Array) -> Told:
        """What the first output answers, as it is compared and counted."""
        info = self._model.outputs[0]
        if self._kind == "classification":
            return {"answer": int(answers("classification", output)[0]), "confidence": top_probability(info, output)}
        values = self._values(output)
        step = max(1, -(-len(values) // _MOST_VALUES))  # evenly spaced ones, the same of all variants
        return {"answer": values[::step].tolist()}

    def _values(self, output: Array) -> Array:
        values: Array = answers("regression", self._model.outputs[0].decode(output))[0]
        return values

    def _open_golden(self, header: Told, _: Payload) -> tuple[Told, bytes]:
        with os.fdopen(header["fd"], "rb", closefd=False) as file:
            golden = read_golden(file)
        if len(golden.inputs) != len(self._model.inputs) or len(golden.outputs) != len(self._model.outputs):
            raise Untrusted(Reason.MANIFEST_INVALID, "golden cases have another number of tensors than the model")
        self._golden = golden
        cases = range(len(golden.inputs[0]))
        if not self.items:
            self.items = [self._runs.fitting([tensor[case] for tensor in golden.inputs]) for case in cases]
        return {"cases": len(cases)}, b""

    def _golden_case(self, header: Told, _: Payload) -> tuple[Told, bytes]:
        assert self._golden is not None, "no golden cases are open"
        case = header["case"]
        outputs = self._runs.run_afresh(self._runs.fitting([tensor[case] for tensor in self._golden.inputs]))[1]
        for number, (got, cases) in enumerate(zip(outputs, self._golden.outputs, strict=True)):
            refuse_nan(got, f"golden case {case}")
            place = f"golden case {case}, output {number}"
            compare(got.reshape(-1), cases[case].reshape(-1), header, place)
        return {}, b""

    def _open_slice(self, header: Told, _: Payload) -> tuple[Told, bytes]:
        with os.fdopen(header["fd"], "rb", closefd=False) as file:
            evaluation = read_evaluation(file)
        if len(evaluation.x) != len(self._model.inputs):
            raise Untrusted(Reason.MANIFEST_INVALID, "the evaluation slice has another number of inputs than the model")
        self.items = [self._runs.fitting(item) for item in zip(*evaluation.x, strict=True)]
        self._slice, self._kind = evaluation, header["kind"]
        if self._kind == "classification":
            return {"items": len(self.items), "target_variance": None, "answer_range": None}, b""
        means = evaluation.y.reshape(len(evaluation.y), -1).astype(np.float64).mean(axis=1)
        ends = [float(means.min()), float(means.max())]
        return {"items": len(self.items), "target_variance": variance(evaluation.y), "answer_range": ends}, b""

    def _item(self, header: Told, _: Payload) -> tuple[Told, bytes]:
        assert self._slice is not None, "no evaluation slice is open"
        number = header["item"]
        self._runs.take_switches()
        latency_ms, outputs = self._runs.run_afresh(self.items[number])
        counts = {"latency_ms": latency_ms, "switches": self._runs.take_switches()}
        output = outputs[0]
        refuse_nan(output, f"evaluation item {number}")
        target = self._slice.y[number]
        answered = self._answered(output)
        if self._kind == "classification":
            return counts | answered | {"correct": answered["answer"] == int(target)}, b""
        error = float(np.mean((self._values(output) - np.asarray(target, np.float64).reshape(-1)) ** 2))
        return counts | answered | {"squared_error": error}, b""

    def _random(self, header: Told, _: Payload) -> tuple[Told, bytes]:
        drawn = RandomInputs(header["seed"])
        self.items = [
            tuple(drawn.tensor(info.dtype, info.shape) for info in self._model.inputs)
            for _ in range(int(header["items"]))
        ]
        return {}, b""

    def _block(self, header: Told, _: Payload) -> tuple[Told, bytes]:
        interpreters = self._runs.interpreters
        self._runs.take_switches()
        with interpreters.apart():
            if interpreters.state is State.TENSORS:
                interpreters.forget()
            took_ms = one_after_another(header["n"], header["max_ms"], self._run_next)
        return {"first_inference_ms": self._first_ms, "switches": self._runs.take_switches()}, took_ms.tobytes()

    def _run_next(self) -> float:
        latency_ms = self._runs.run(self.items[self._next_item % len(self.items)])
        self._next_item += 1
        return latency_ms
