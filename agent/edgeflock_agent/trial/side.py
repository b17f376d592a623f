"""One variant's results in a window: what it ran, how long that took, how well it answered.

Decided here: what counts as an error, and what each error costs. An error of a variant on a labelled item is a wrong
answer: a variant cannot look better by not answering. A request of an application has no label and moves no accuracy.

Where the bundle declares processing, whole requests are timed as well: an application's as it was run, and for an item
of the slice, which lies in the model's own terms, one more of the same size, right after it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Literal, TypeVar

from edgeflock_agent.children.runner import Closed, HardStop, InferenceFailed, ItemResult, ModelProcess, Slice
from edgeflock_agent.trial.outcomes import OutcomeCounts
from edgeflock_deploy.messages.measurements import Energy
from edgeflock_deploy.messages.windows import VariantWindow
from edgeflock_deploy.quantiles import latency_quantiles
from edgeflock_deploy.sketch import sketch_of

SideName = Literal["old", "new"]
Inputs = tuple[bytes, ...]
Result = TypeVar("Result")
_NO_ENERGY = Energy(
    reason="the trial was not asked for energy, and pairs take turns within milliseconds, which no meter tells apart"
)


class SideStopped(Exception):
    """One of the two must not run any longer.

    Args:
        side: `old` for the incumbent, `new` for the candidate.
        stop: the reason; for a child that somebody closed meanwhile, None.
    """

    def __init__(self, side: SideName, stop: HardStop | None) -> None:
        super().__init__(f"{side}: {stop or 'closed'}")
        self.side, self.stop = side, stop


class Side:
    """One variant's results so far; `process` may be another one after an exchange."""

    def __init__(self, name: SideName, process: ModelProcess, task: Slice) -> None:
        self.name, self.process, self.task = name, process, task
        self.switches = 0
        self.inferences = 0
        self.errors = 0
        self._latencies_ms: list[float] = []
        self._live_latencies_ms: list[float] = []
        self._service_ms: list[float] = []
        self._whole_ms: list[float] = []
        self._live_whole_ms: list[float] = []
        self._correct = self._answered = self._scored = 0
        self._squared_error = 0.0
        self._outcomes = OutcomeCounts(task, process)
        self._lock = threading.Lock()  # applications are answered on threads of their own

    def run(self, item: int) -> ItemResult | None:
        """Run one item of the slice and count it; None for an error.

        Raises:
            SideStopped: the variant crashed, hung, gave NaN or was closed.
        """
        self._scored += 1
        result = self._tried(lambda: self.process.run_item(item))
        if result is not None:
            self._answered += 1
            self._correct += bool(result.correct)
            self._squared_error += result.squared_error or 0.0
            self._count(result)
            self._latencies_ms.append(result.latency_ms)
            self._run_whole(item)
        return result

    def run_live(self, inputs: Inputs) -> tuple[ItemResult | None, bool]:
        """Run an application's input again and count it: the result, None for an error, and whether it was NaN.

        Raises:
            SideStopped: the variant crashed, hung or was closed.
        """
        judged = self._tried(lambda: self.process.infer_judged(inputs))
        if judged is None:
            return None, False
        if judged.result is None:
            self.errors += 1
            return None, True
        self._count(judged.result)
        self._latencies_ms.append(judged.result.latency_ms)
        if self.process.processed:
            self._whole_ms.append(judged.inference.end_to_end_ms)
        return judged.result, False

    def answered(self, result: ItemResult, end_to_end_ms: float, service_ms: float) -> None:
        """Count an application's request that this variant answered: what it took, and how long was waited for it."""
        self._count(result)
        with self._lock:
            self.inferences += 1
            self._live_latencies_ms.append(result.latency_ms)
            self._service_ms.append(service_ms)
            if self.process.processed:
                self._live_whole_ms.append(end_to_end_ms)

    def failed(self) -> None:
        """Count an application's request that this variant could not answer."""
        with self._lock:
            self.inferences += 1
            self.errors += 1

    @property
    def live(self) -> int:
        """How many requests of applications it answered."""
        return len(self._live_latencies_ms)

    def window(self, live: int | None = None) -> VariantWindow:
        """The results, with the first `live` answered requests (all of them if None)."""
        latencies_ms = self._latencies_ms + self._live_latencies_ms[:live]
        quantiles, service = latency_quantiles(latencies_ms), latency_quantiles(self._service_ms[:live])
        whole = latency_quantiles(self._whole_ms + self._live_whole_ms[:live])
        return VariantWindow(
            n=quantiles.n,
            latency_ms_p50=quantiles.p50,
            latency_ms_p90=quantiles.p90,
            latency_ms_p95=quantiles.p95,
            latency_ms_p99=quantiles.p99,
            sketch=sketch_of(latencies_ms),
            errors=self.errors,
            accuracy=self._score(),
            energy=_NO_ENERGY,
            service_n=service.n,
            service_ms_p50=service.p50,
            service_ms_p95=service.p95,
            end_to_end_n=whole.n,
            end_to_end_ms_p50=whole.p50,
            end_to_end_ms_p95=whole.p95,
            outcomes=self._outcomes.counted(),
        )

    def _run_whole(self, item: int) -> None:
        if not self.process.processed or self.process.takes_sequences:  # an application's sequence may be running
            return
        took_ms = self._tried(lambda: self.process.measure_end_to_end(1, first=item), counts=False)
        self._whole_ms += took_ms or ()

    def _tried(self, run: Callable[[], Result], *, counts: bool = True) -> Result | None:
        self.inferences += 1
        try:
            return run()
        except InferenceFailed:
            self.errors += counts
            return None
        except HardStop as stop:
            raise SideStopped(self.name, stop) from None
        except Closed:
            raise SideStopped(self.name, None) from None

    def _count(self, result: ItemResult) -> None:
        with self._lock:
            self.switches += result.switches
            self._outcomes.add(result)

    def _score(self) -> float | None:
        """Accuracy, or for a regression r2 against the variance of the whole slice's targets."""
        if not self._scored:
            return None
        if self.task.kind == "classification":
            return self._correct / self._scored
        if not self.task.target_variance or not self._answered:
            return None
        return 1 - self._squared_error / self._answered / self.task.target_variance
