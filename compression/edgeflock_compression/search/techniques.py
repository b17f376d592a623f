"""What each technique brought on this runtime, in a sentence, from pairs of candidates that differ in it alone.

Pure: reads measured candidates. A technique that did not help in something says so in numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgeflock_compression.search.candidate import Candidate
from edgeflock_compression.search.space import said, steps_of

_SAME = 0.03  # a latency that differs by less is called equal


def sentences(candidates: Sequence[Candidate], baseline: Candidate) -> list[str]:
    """One sentence for each way of quantizing and each training pass, the best trained pair of each."""
    found: dict[str, str] = {}
    by_steps: dict[str, Candidate] = {}
    for one in sorted(candidates, key=_training, reverse=True):
        by_steps.setdefault(_key(_steps(one)), one)
    for one in sorted(candidates, key=_training):
        steps = _steps(one)
        if one.name == baseline.name:
            continue
        if len(steps) == 1:
            found[said(steps[0])] = _sentence(said(steps[0]), one, baseline)
            continue
        before = by_steps.get(_key([*steps[:-2], steps[-1]]))
        if before is not None:
            found[said(steps[-2])] = _sentence(said(steps[-2]), one, before)
    return list(found.values())


def _sentence(what: str, one: Candidate, before: Candidate) -> str:
    wire = before.variant.wire_bytes / one.variant.wire_bytes
    raw = before.variant.raw_bytes / one.variant.raw_bytes
    parts = [
        _speed(one, before),
        f"{_factor(wire, 'smaller', 'larger')} on the wire",
        f"{_factor(raw, 'smaller', 'larger')} as a file",
    ]
    certificate, earlier = one.variant.certificate, before.variant.certificate
    if certificate and earlier and certificate.loss is not None and earlier.loss is not None:
        loss = certificate.loss - earlier.loss
        parts.append(f"{'loses' if loss >= 0 else 'gains'} {abs(loss):.2g} {certificate.unit}".rstrip())
    return f"{what}: {', '.join(parts)} ({one.name} against {before.name}, {one.variant.n_items:,} validation items)"


def _speed(one: Candidate, before: Candidate) -> str:
    if one.latency is None or before.latency is None:
        return "latency not measured"
    ratio = one.latency.ratio / before.latency.ratio
    if abs(ratio - 1) < _SAME:
        return "0 % faster here"
    return f"{1 / ratio:.2g}x as fast here"


def _factor(ratio: float, better: str, worse: str) -> str:
    if abs(ratio - 1) < _SAME / 3:
        return f"no {better}"
    return f"{ratio:.1f}x {better}" if ratio > 1 else f"{1 / ratio:.2g}x {worse}"


def _steps(one: Candidate) -> list[Mapping[str, Any]]:
    return steps_of(one.variant.recipe)


def _key(steps: Sequence[Mapping[str, Any]]) -> str:
    """Passes without how long they trained, so that a rung's candidates meet those of another."""
    return repr([{key: value for key, value in step.items() if key != "epochs"} for step in steps])


def _training(one: Candidate) -> float:
    return sum(float(step.get("epochs", 0)) for step in _steps(one))
