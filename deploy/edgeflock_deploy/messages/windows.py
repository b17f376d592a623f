"""Windows of a trial: incumbent and candidate on the same inputs, summarised."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from edgeflock_deploy.messages.measurements import Conditions, Energy
from edgeflock_deploy.messages.values import FromDevice, Frozen


class LatencySketch(Frozen):
    """A mergeable latency histogram: bin i counts the latencies in (gamma^(i-1), gamma^i] milliseconds.

    gamma = (1 + a) / (1 - a) for the relative accuracy a (DDSketch; Masson, Rim and Lee 2019).
    """

    relative_accuracy: float = 0.01
    bins: dict[int, int] = Field(default_factory=dict)

    def __hash__(self) -> int:
        """Of equal ones the same. pydantic copies a default that has none, deeply, for every window that it reads."""
        return hash((self.relative_accuracy, tuple(sorted(self.bins.items()))))


class Outcomes(Frozen):
    """What a variant answered, counted in fixed bins: the mix of answers shows drift where no label does.

    A classification: `classes` counts the answered class (up to 64 classes each in its own bin, more are hashed into
    64) and `confidence` the probability of the answer in tenths. A regression: `values` counts the answers, each the
    mean of its values, in twenty bins between `low` and `high`, the ends of the evaluation slice's targets; what lies
    outside is in the first and the last. Bins of zeros at the end are left out, and so is what was not counted.
    """

    classes: tuple[int, ...] = Field((), max_length=64)
    confidence: tuple[int, ...] = Field((), max_length=10)
    values: tuple[int, ...] = Field((), max_length=20)
    low: float | None = None
    high: float | None = None


class VariantWindow(Frozen):
    """One variant's side of a window. A quantile below its sample count is None and stakes nothing.

    `latency_*` is the interpreter's call alone, a closed loop; `service_*` is an application's wait from the arrival of
    its request, queueing included, over the `service_n` requests of a serving trial that this variant answered;
    `end_to_end_*` whole requests with the processing that the bundle declares, over `end_to_end_n` of them, if it does.
    `n` inferences were answered, `errors` more failed. `crashes`: how often its process was started anew since the
    window before.
    """

    n: int
    latency_ms_p50: float | None = None
    latency_ms_p90: float | None = None
    latency_ms_p95: float | None = None
    latency_ms_p99: float | None = None
    sketch: LatencySketch = LatencySketch()
    errors: int = 0
    crashes: int = 0
    accuracy: float | None = None
    peak_rss_bytes: int | None = None
    energy: Energy = Energy()
    service_n: int = 0
    service_ms_p50: float | None = None
    service_ms_p95: float | None = None
    end_to_end_n: int = 0
    end_to_end_ms_p50: float | None = None
    end_to_end_ms_p95: float | None = None
    outcomes: Outcomes = Outcomes()


WindowMode = Literal["shadow", "serving", "alternating", "alone"]


class Window(FromDevice):
    """One window of a trial: incumbent (`old`) and candidate (`new`) on the same inputs, interleaved.

    `mode` says how the two came to run: side by side (`shadow`, `serving`), one after the other in blocks because there
    is no memory for both (`alternating`), or each by itself (`alone`), which pairs nothing: `paired` is false then.
    `live_pairs` of the pairs were an application's requests; the others are items of the evaluation slice, replayed.
    """

    kind: Literal["window"] = "window"
    device_class: str
    rollout: str
    model: str
    number: int = Field(ge=0)
    old_digest: str
    new_digest: str
    duration_s: float
    pairs: int
    old: VariantWindow
    new: VariantWindow
    agreement: float | None = None  # share of items with the same answer
    paired: bool = True
    mode: WindowMode = "shadow"
    live_pairs: int = 0
    conditions: Conditions = Conditions()
