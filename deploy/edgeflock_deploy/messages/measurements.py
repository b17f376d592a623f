"""What a device measured of one variant alone, and under which conditions."""

from __future__ import annotations

from typing import Literal

from edgeflock_deploy.messages.values import Frozen

Scope = Literal["board_input", "module_input", "soc_rails", "cpu_package", "battery", "rail"]
_GATING_METHODS = ("counter", "sampled")
_GATING_SCOPES = ("board_input", "module_input", "soc_rails", "cpu_package")


class Energy(Frozen):
    """Energy per inference, or why there is none.

    `mj` is gross: all that the meter saw, idle included. `net_mj` is what is left without the idle power measured
    before and after, and `net_error_mj` how far those two put it apart. `scope` is what the meter covers; `rail` is one
    of which nobody said what hangs on it. `error_pct` is the error of a model, from its calibration.
    """

    mj: float | None = None
    method: Literal["counter", "sampled", "modelled", "none"] = "none"
    meter: str | None = None
    reason: str | None = None
    scope: Scope | None = None
    net_mj: float | None = None
    net_error_mj: float | None = None
    net_reason: str | None = None
    sample_hz: float | None = None
    error_pct: float | None = None

    @property
    def may_gate(self) -> bool:
        """Whether a rollout may be judged by it: measured, on a scope that the model surely draws from."""
        return self.mj is not None and self.method in _GATING_METHODS and self.scope in _GATING_SCOPES


class Conditions(Frozen):
    """What might have disturbed a window, in which both variants ran under it alike, or a measurement of one variant.

    `emulated`: the processor was translated by software, so times and energy say nothing about a board. `governor`:
    what decides the cores' frequency, as cpufreq names it; several, where cores differ, joined by `+`.
    """

    emulated: bool = False
    contended: bool = False
    cpu_pressure_pct: float | None = None
    involuntary_switches: int = 0
    throttled: bool | None = None
    frequency_mhz: float | None = None
    frequency_max_mhz: float | None = None
    temperature_c: float | None = None
    governor: str | None = None


class Measurement(Frozen):
    """What WARMING measured of one variant, alone on the device.

    `latency_ms` is the interpreter's call alone; `end_to_end_ms` a whole request, from an application's bytes to the
    answer's, with the processing that the bundle declares. An agent before that measured it leaves it None.
    """

    n: int
    latency_ms_p50: float | None
    latency_ms_p90: float | None
    latency_ms_p95: float | None
    first_inference_ms: float
    load_ms: float
    warmed_up: bool
    peak_rss_bytes: int | None
    energy: Energy = Energy()
    end_to_end_ms_p50: float | None = None
    end_to_end_ms_p95: float | None = None
    involuntary_switches: int | None = None
    conditions: Conditions | None = None  # None: not looked at
