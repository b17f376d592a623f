"""Weight pruning: elements of small magnitude become zero and stay zero. Helps the bytes on the wire, nothing else.

Magnitude pruning with fine-tuning (Han et al. 2015, arXiv:1506.02626) on the cubic schedule of Zhu and Gupta (2017,
arXiv:1710.01878). While the schedule rises, a pruned element keeps a value beside the weight that still gets gradients
(straight through), so that it can come back (Guo et al. 2016, arXiv:1608.04493); then the masks are frozen.
N:M sparsity along the input dimension after Mishra et al. (2021, arXiv:2104.08378).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from edgeflock_compression.tf_import import tensorflow
from edgeflock_compression.training.dropout import with_less_dropout
from edgeflock_compression.training.fine_tuning import Variables, fine_tune
from edgeflock_compression.training.parametrization import Parametrization, held, kept
from edgeflock_compression.weights.sparsity import Scope, cubic, magnitude_masks, n_of_m_mask
from edgeflock_compression.weights.targets import Target, WeightPass, setting_of, targets
from edgeflock_compression.work import Skipped, Work
from edgeflock_deploy.errors import BadInput

Array = NDArray[Any]
Masks = Mapping[str, NDArray[np.bool_]]
Choose = Callable[[float, Mapping[str, Array]], Masks]


class Settings(WeightPass):
    """Settings of the pass. `n_of_m` takes the place of `sparsity` and `scope`."""

    epochs: float = Field(10.0, ge=0)
    learning_rate: float = Field(2e-3, gt=0)
    sparsity: float | dict[str, float] = 0.8  # share of zeros, 0..1; or by pattern of weight paths, first match counts
    scope: Scope = "lamp"  # where magnitudes are compared, see `magnitude_masks`; shares by pattern are per layer
    n_of_m: str | None = Field(None, pattern=r"^[1-9]\d*:[1-9]\d*$")  # e.g. "2:4": two of any four inputs stay
    ramp: float = Field(0.4, ge=0, le=1)  # share of the training in which sparsity rises
    regrowth: float = Field(0.5, ge=0, le=1)  # what a pruned element's own magnitude counts: at 0 none comes back


@dataclass(frozen=True)
class Pruned:
    """A weight of which a mask, itself a parameter that no gradient moves, lets elements through.

    Args:
        mask: the mask to start with.
    """

    mask: NDArray[np.bool_]

    def start(self, weight: Array) -> Sequence[Array]:
        """The weight behind the mask, and the mask as 0 and 1."""
        return weight, self.mask.astype(np.float32)

    def weight(self, parameters: Sequence[Any]) -> Any:
        """Exactly zero where the mask is 0; the gradient passes as if it were not there."""
        tf = tensorflow()
        latent, mask = parameters
        mask = tf.stop_gradient(mask) + 0.0 * mask  # a gradient of zero: optimizers warn of None
        return latent * tf.stop_gradient(mask) + (latent - tf.stop_gradient(latent)) * (1 - mask)


def prune_weights(work: Work, settings: Settings) -> Work:
    """Prune and fine-tune; `work.masks` says what stays.

    Elements that an earlier pass holds at zero stay so and count as pruned.

    Raises:
        BadInput: a pattern matches no weight, or a sparsity is not in 0..1.
    """
    chosen, skipped = targets(work, settings)
    choose, chosen, left = _chooser(chosen, settings)
    work = work.skipping(*skipped, *left)
    if not chosen:
        return work
    before: Masks = {one.path: work.masks.get(one.path, np.ones(one.weight.shape, bool)) for one in chosen}
    masks: dict[str, NDArray[np.bool_]] = dict(before)
    ramp = settings.ramp if settings.epochs else 0.0
    frozen = False

    def schedule(share: float, variables: Variables) -> None:
        nonlocal frozen
        if frozen:
            return
        frozen = share >= ramp
        ease = {path: np.where(masks[path], 1, settings.regrowth * before[path]) for path in before}
        sizes = {path: np.abs(np.asarray(variables[path][0])) * ease[path] for path in before}
        for path, mask in choose(1.0 if frozen else share / ramp, sizes).items():
            masks[path] = mask & before[path]
            variables[path][1].assign(masks[path].astype(np.float32))

    rules: dict[str, Parametrization] = {**held(work), **{path: Pruned(mask) for path, mask in before.items()}}
    aim = choose(1.0, {one.path: np.abs(one.weight) for one in chosen})
    kept_share = sum(mask.sum() for mask in aim.values()) / sum(mask.size for mask in aim.values())
    model = with_less_dropout(work.model, float(kept_share))
    trained = fine_tune(model, work.bench, settings, rules, "pruning weights", schedule)
    books = kept(work, {path: trained.parameters[path][0] for path in work.codebooks})
    done = replace(work, model=trained.model, masks={**work.masks, **masks}, codebooks=books)
    return done.noting("prune_weights", sparsity={path: float(1 - mask.mean()) for path, mask in masks.items()})


def _chooser(chosen: list[Target], settings: Settings) -> tuple[Choose, list[Target], list[Skipped]]:
    """How masks are chosen: (share of the ramp, weights by path) -> masks; and the weights that it can treat."""
    if settings.n_of_m:
        return _n_of_m(chosen, *map(int, settings.n_of_m.split(":")))
    paths = [one.path for one in chosen]
    ends = {path: setting_of(path, settings.sparsity, paths) for path in paths}
    for value in ends.values():
        if value is not None and not 0 <= value < 1:
            raise BadInput("pass 'prune_weights'", f"sparsity {value:g} is not in 0..1", "give the share of zeros")
    chosen = [one for one in chosen if ends[one.path] is not None]
    if not isinstance(settings.sparsity, Mapping):
        end, scope = settings.sparsity, settings.scope
        return lambda share, weights: magnitude_masks(weights, cubic(0.0, end, share), scope), chosen, []

    def by_pattern(share: float, weights: Mapping[str, Array]) -> Masks:
        found: dict[str, NDArray[np.bool_]] = {}
        for path, weight in weights.items():
            found |= magnitude_masks({path: weight}, cubic(0.0, ends[path] or 0.0, share), "layer")
        return found

    return by_pattern, chosen, []


def _n_of_m(chosen: list[Target], n: int, m: int) -> tuple[Choose, list[Target], list[Skipped]]:
    """Sparsity rises by taking, of the elements that N:M does without, the smallest first."""
    if n >= m:
        raise BadInput("pass 'prune_weights'", f"n_of_m {n}:{m} keeps everything", "give fewer than all, as in 2:4")
    axes, skipped = {}, []
    for one in chosen:
        if one.input_axis is None:
            skipped.append(Skipped(layer=one.path, reason=f"has no input dimension for {n}:{m}"))
        elif one.weight.shape[one.input_axis] % m:
            size = one.weight.shape[one.input_axis]
            skipped.append(Skipped(layer=one.path, reason=f"its input dimension {size} is no multiple of {m}"))
        else:
            axes[one.path] = one.input_axis

    def choose(share: float, weights: Mapping[str, Array]) -> Masks:
        found = {}
        for path, weight in weights.items():
            best = n_of_m_mask(weight, n, m, axes[path])
            lifted = np.where(best, np.inf, np.abs(weight))
            sparsity = cubic(0.0, 1 - n / m, share)
            found[path] = magnitude_masks({path: lifted}, sparsity, "layer")[path] | best
        return found

    return choose, [one for one in chosen if one.path in axes], skipped
