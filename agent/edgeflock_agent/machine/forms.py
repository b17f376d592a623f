"""The fallback chain of a bundle on this device: which form is in hand, and what becomes of one that does not fit.

Decided here: the order (the bundle's own, forwards only), and that a bundle has failed when its last form has. Not
known here: why a form does not fit (`machine` is told), and where its files are. Pure.
"""

from __future__ import annotations

from edgeflock_agent.machine.state import BundleFacts, ModelState
from edgeflock_deploy.messages.reports import Tried
from edgeflock_deploy.reasons import Reason


def afresh(state: ModelState, digest: str) -> ModelState:
    """A new order begins with the first form, unless a slot holds the bundle: then with the form that it is held as."""
    if digest in (state.slots.active, state.slots.previous, state.slots.factory):
        return state
    return state.but(bundles={known: facts for known, facts in state.bundles.items() if known != digest})


def came(state: ModelState, digest: str, version: int, variants: tuple[str, ...]) -> ModelState:
    """The bundle's manifest is here and names its forms; the form that is in hand already stays so."""
    facts = state.bundles.get(digest) or BundleFacts(version=version)
    return _with(state, digest, facts.model_copy(update={"variants": variants}))


def did_not_fit(state: ModelState, digest: str, reason: Reason, detail: str) -> ModelState:
    """Remember that the form in hand does not fit."""
    facts = state.bundles.get(digest)
    if facts is None or facts.variant is None:  # a record of before there were forms
        return state
    tried = Tried(variant=facts.variant, reason=reason, detail=detail)
    others = tuple(one for one in facts.tried if one.variant != facts.variant)
    return _with(state, digest, facts.model_copy(update={"tried": (*others, tried)}))


def next_form(state: ModelState, digest: str) -> ModelState | None:
    """The bundle with its next form in hand, of which nothing is measured yet; None: the one in hand is the last."""
    facts = state.bundles.get(digest)
    if facts is None or facts.form + 1 >= len(facts.variants):
        return None
    return _with(state, digest, facts.model_copy(update={"form": facts.form + 1, "measurement": None}))


def in_words(state: ModelState, digest: str, detail: str) -> str:
    """Why the bundle failed: of one form its own detail, of several the reason of each."""
    facts = state.bundles.get(digest)
    if facts is None or len(facts.tried) < 2:
        return detail
    return "no form fits: " + "; ".join(f"{one.variant}: {one.reason.value} ({one.detail})" for one in facts.tried)


def gave_way(before: ModelState, after: ModelState) -> Tried | None:
    """The form that gave way between these two moments, with where the chain stands now in its detail; else None."""
    digest = after.candidate or ""
    was, now = before.bundles.get(digest), after.bundles.get(digest)
    if was is None or now is None or now.form == was.form:
        return None
    last = now.tried[-1]
    return last.model_copy(update={"detail": f"{last.variant} does not fit: {last.detail}; {now.variant} is next"})


def _with(state: ModelState, digest: str, facts: BundleFacts) -> ModelState:
    return state.but(bundles=state.bundles | {digest: facts})
