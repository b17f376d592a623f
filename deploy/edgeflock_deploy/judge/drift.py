"""Drift: does the candidate answer with another mix than the incumbent, where nobody knows the right answer?

Decided here: the observation z of a window. Not known here: what is staked on it, and what follows.

Both variants saw inputs of the same kind, and each window counts their answers in the same bins. The distance of two
histograms is above 0 by chance alone, the more so the fewer items they hold; so it is not used. Instead the windows
before predict, bin by bin, where the candidate answers oftener (+1/2) and where more rarely (-1/2), and z is how far
this window bears that out: the sum over bins of sign times (new share - old share). A prediction made beforehand has no
such bias: whatever the number of items, the mean of z is at most the total variation distance of the two mixes, and
about it once the prediction is right (testing by betting against a predicted witness: Shekhar and Ramdas 2023). The
first window of a device only predicts.

Confidence is not looked at: a quantised variant is as right with other scores.
"""

from __future__ import annotations

from itertools import zip_longest

from edgeflock_deploy.messages.windows import Outcomes

Leaning = tuple[int, ...]
"""How often the candidate answered in each bin, less how often the incumbent did, over all windows so far."""


def drifted(before: Leaning, old: Outcomes, new: Outcomes) -> tuple[float | None, Leaning]:
    """How far a window bears out the windows before, in [-1, 1], and what they all say now; None: nothing to say."""
    counted_old, counted_new = old.classes or old.values, new.classes or new.values
    items_old, items_new = sum(counted_old), sum(counted_new)
    if not items_old or not items_new:
        return None, before
    z, after = 0.0, []
    for lean, there, here in zip_longest(before, counted_old, counted_new, fillvalue=0):
        if lean > 0:
            z += (here / items_new - there / items_old) / 2
        elif lean < 0:
            z -= (here / items_new - there / items_old) / 2
        after.append(lean + here - there)
    return (z if before else None), tuple(after)
