"""What `edgeflock-agent bench` shows to be read: the same numbers as its JSON, each with what qualifies it."""

from __future__ import annotations

from typing import Any

_SLOW_CLOCK = 0.95  # of what the processor can do; below it the absolute numbers are not the board's best


def readable(found: dict[str, Any]) -> str:
    """A few lines per model, then the ratio.

    Args:
        found: the object that the command prints as JSON.
    """
    lines = [*_model(found)]
    lines += [_row("beside", _foreign(run)) for run in found.get("benchmark_model", ())]
    if "against" in found:
        lines += [*_model(found["against"]), *_ratio(found)]
    return "\n".join(lines)


def _model(found: dict[str, Any]) -> list[str]:
    warm = "warm after" if found["warmed_up"] else "NOT settled after"
    per_s = ", ".join(f"{rate:,.4g}/s with {threads} thread(s)" for threads, rate in found["inferences_per_s"].items())
    return [
        f"{found['model']}  ({found['raw_bytes']:,} bytes)",
        _row("latency", f"p50 {_ms(found, 'p50')}, p90 {_ms(found, 'p90')}, p95 {_ms(found, 'p95')}"),
        _row("", f"p99 {_ms(found, 'p99')}  ({found['n']} inferences, {found['threads']} thread(s))"),
        _row("end to end", _end_to_end(found)),
        _row("throughput", per_s),
        _row("first", f"load {found['load_ms']:.4g} ms, first inference {found['first_inference_ms']:.4g} ms"),
        _row("warm-up", f"{warm} {found['warm_up_inferences']} inferences"),
        _row("memory", _memory(found)),
        *(_row(name, text) for name, text in zip(("energy", ""), energy_lines(found["energy"]), strict=False)),
        _row("conditions", flags(found["conditions"])),
    ]


def _ratio(found: dict[str, Any]) -> list[str]:
    ratio = found["ratio"]
    interval = "too few rounds for an interval"
    if ratio["low"] is not None:
        interval = f"{ratio['low']:.3f} to {ratio['high']:.3f}"
    took = f"{ratio['rounds']} rounds, {ratio['pairs']:,} pairs"
    lines = [
        f"{found['model']} / {found['against']['model']}: latency x {ratio['median']:.3f}  (95 %: {interval}; {took})"
    ]
    if not ratio["reached"]:
        half = "unknown" if ratio["half_width"] is None else f"{ratio['half_width']:.1%}"
        wanted = f"{ratio['wanted_half_width']:.1%}"
        lines.append(f"  NOT settled within {ratio['seconds']:.0f} s: half the interval is {half}, {wanted} was wanted")
    lines.append(_row("conditions", flags(ratio["conditions"])))
    return lines


def _row(name: str, text: str) -> str:
    return f"  {name:<11}{text}"


def _ms(found: dict[str, Any], which: str) -> str:
    value = found[f"latency_ms_{which}"]
    return "too few samples" if value is None else f"{value:.4g} ms"


def _end_to_end(found: dict[str, Any]) -> str:
    p95 = found["end_to_end_ms_p95"]
    tail = "too few samples" if p95 is None else f"{p95:.4g} ms"
    return f"p50 {found['end_to_end_ms_p50']:.4g} ms, p95 {tail}  (with the copies in and out)"


def _memory(found: dict[str, Any]) -> str:
    if found["peak_rss_bytes"] is None:
        return f"none: {found['peak_rss_reason']}"
    parts = f"{found['peak_anonymous_bytes'] / 1024:,.0f} anonymous, {found['peak_file_bytes'] / 1024:,.0f} of files"
    return f"{found['peak_rss_bytes'] / 1024:,.0f} KiB at its peak ({parts})"


def energy_lines(energy: dict[str, Any]) -> list[str]:
    """Gross with its method and scope, then net; or why there is none."""
    if energy["mj"] is None:
        return [f"none: {energy['reason']}"]
    how = [energy["method"], energy["scope"].replace("_", " "), energy["meter"]]
    if energy["sample_hz"] is not None:
        how.append(f"{energy['sample_hz']:.0f} readings a second")
    if energy["error_pct"] is not None:
        how.append(f"error {energy['error_pct']:.0f} %")
    if not energy["may_gate"]:
        how.append("gates nothing")
    net = f"net unknown: {energy['net_reason']}"
    if energy["net_mj"] is not None:
        net = f"{energy['net_mj']:.4g} mJ net of idle, +-{energy['net_error_mj']:.2g}"
    return [f"{energy['mj']:.4g} mJ gross ({', '.join(how)})", net]


def flags(state: dict[str, Any]) -> str:
    """What disturbed a measurement, in words; `calm` if nothing is known to have."""
    said = [word for word in ("emulated", "contended", "throttled") if state.get(word)]
    frequency, most = state["frequency_mhz"], state["frequency_max_mhz"]
    if frequency is not None and most is not None and frequency < _SLOW_CLOCK * most:
        said.append("slow clock")
    said = said or ["calm"]
    if frequency is not None:
        said.append(f"{frequency:.0f} MHz" + (f" of {most:.0f}" if most is not None else ""))
    if state.get("governor") is not None:
        said.append(f"governor {state['governor']}")
    if state["temperature_c"] is not None:
        said.append(f"{state['temperature_c']:.0f} C")
    if state["cpu_pressure_pct"] is not None:
        said.append(f"pressure {state['cpu_pressure_pct']:.0f} %")
    return ", ".join(said)


def _foreign(run: dict[str, Any]) -> str:
    who = f"LiteRT's tool{'' if run['graph'] is None else ' on ' + run['graph']}"
    median = "" if run["latency_ms_p50"] is None else f", p50 {run['latency_ms_p50']:.4g} ms"
    numbers = f"mean {run['latency_ms_mean']:.4g} ms{median}, first {run['first_inference_ms']:.4g} ms"
    if run["memory_mb"] is not None:
        numbers += f", memory {run['memory_mb']:.1f} MB"
    ours = run["reason"] or f"ours is x {run['ours_over_theirs_p50']:.3f} of their median"
    return f"{who}: {numbers}; {ours}"
