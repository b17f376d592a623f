"""What is known of a version's variants on a class of devices: its results from the database, as a table.

Decided here: a result is fresh while it is of the same bundle, class and runtime and not older than `FRESH_S`; that a
board had no room changes sooner, and so does a governor of its processor under which it measured few variants. Of the
parent, from which a drop of accuracy is counted, what boards of other classes measured is known too: it is of the same
items. What the table says is decided in `choice`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from edgeflock_compression.quantization.capabilities import why_not
from edgeflock_controller.choice.alike import unlike, usual_governors
from edgeflock_controller.choice.facts import PARENT, Facts, Variant, facts, succeeded
from edgeflock_controller.measurements import Result
from edgeflock_controller.registry import Bundle
from edgeflock_controller.store import Store
from edgeflock_deploy.messages.reports import Measured
from edgeflock_deploy.reasons import Reason

FRESH_S = 30 * 86_400.0
SOON_S = 6 * 3600.0  # longer than a campaign, so that it does not ask the same board again


def fresh(
    store: Store, digests: Sequence[str], device_class: str, runtimes: Iterable[str], at: float
) -> dict[str, list[Result]]:
    """The fresh results of a version's bundles on a class whose devices have these runtimes now, by digest."""
    known = set(runtimes)
    results = {
        digest: [
            result
            for result in store.measurements.results(digest)
            if result.device_class == device_class and result.runtime in known
        ]
        for digest in digests
    }
    usual = usual_governors({one.device: one.answer for one in of_bundle} for of_bundle in results.values())
    return {
        digest: [one for one in of_bundle if at - one.at <= _life_s(one, usual)]
        for digest, of_bundle in results.items()
    }


def _life_s(result: Result, usual: Mapping[str, str]) -> float:
    passing = result.answer.reason is Reason.NO_ROOM or unlike({result.device: result.answer}, usual) is not None
    return SOON_S if passing else FRESH_S


def barred(bundle: Bundle, device_class: str, runtimes: Iterable[str]) -> str | None:
    """Why devices of a class need not even measure a bundle; None: they may."""
    allowed = bundle.manifest.device_classes
    if allowed is not None and device_class not in allowed:
        return f"it is for {', '.join(allowed)}"
    whys = [why for runtime in sorted(set(runtimes)) if runtime and (why := why_not(bundle.manifest.modes, runtime))]
    return f"it would not run rightly: {whys[0]}" if whys else None


def class_facts(
    store: Store, bundles: Sequence[Bundle], device_class: str, runtimes: Iterable[str], at: float
) -> Facts:
    """The table of a class over these bundles."""
    known = tuple(runtimes)
    results = fresh(store, [bundle.digest for bundle in bundles], device_class, known, at)
    variants = []
    for bundle in bundles:
        answers = {result.device: result.answer for result in results[bundle.digest]}
        elsewhere = _elsewhere(store, bundle, device_class, at) if bundle.manifest.variant == PARENT else {}
        why = barred(bundle, device_class, known)
        variants.append(Variant(bundle.digest, bundle.manifest, answers, why, elsewhere))
    return facts(variants)


def _elsewhere(store: Store, bundle: Bundle, device_class: str, at: float) -> dict[str, Measured]:
    """What boards of other classes measured of a variant itself, each as whatever it then was."""
    others = [one for one in store.measurements.results(bundle.digest) if one.device_class != device_class]
    answers = {one.device: one.answer for one in others if at - one.at <= _life_s(one, {})}
    return succeeded(bundle.manifest.variant, answers)
