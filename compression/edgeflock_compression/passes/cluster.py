"""Clustering: the elements of a weight share few values. Helps the bytes on the wire, nothing else.

k-means over each weight, then the shared values are trained (Han, Mao, Dally 2016, arXiv:1510.00149, section 3). In the
first part of the training an element may still move to another value: it keeps a value of its own behind the shared
one, which gets the gradient straight through (Bengio et al. 2013, arXiv:1308.3432). Pruned elements stay at zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from edgeflock_compression.tf_import import tensorflow
from edgeflock_compression.training.fine_tuning import fine_tune
from edgeflock_compression.training.parametrization import Parametrization, held, kept
from edgeflock_compression.weights.kmeans import kmeans, nearest
from edgeflock_compression.weights.targets import WeightPass, setting_of, targets
from edgeflock_compression.work import Codebook, Skipped, Work
from edgeflock_deploy.errors import BadInput

Array = NDArray[Any]
Mask = NDArray[np.bool_]


class Settings(WeightPass):
    """Settings of the pass."""

    epochs: float = Field(4.0, ge=0)
    clusters: int | dict[str, int] = 32  # values per weight, zero of a pruned one included; or by pattern
    per: Literal["tensor", "channel"] = "tensor"  # one set of values per weight, or per slice of its last axis
    moving: float = Field(0.5, ge=0, le=1)  # share of the training in which elements may take another value


@dataclass(frozen=True)
class Moving:
    """Each element takes the shared value that is nearest to a value of its own; both are trained.

    Args:
        book: the codebook to start with; its rows after the fixed ones rise.
        mask: False is held at zero.
    """

    book: Codebook
    mask: Mask

    def start(self, weight: Array) -> Sequence[Array]:
        """The elements' own values, and the shared values that are not fixed, (channels, k), one channel if shared."""
        return weight, np.atleast_2d(self.book.values[~self.book.fixed].T)

    def weight(self, parameters: Sequence[Any]) -> Any:
        """The nearest shared value where the mask lets it through."""
        tf = tensorflow()
        own, values = parameters
        values = tf.sort(values, axis=1)
        rows = tf.transpose(tf.reshape(own, (-1, values.shape[0])))  # (channels, elements)
        codes = tf.searchsorted(tf.stop_gradient(values[:, :-1] + values[:, 1:]) / 2, tf.stop_gradient(rows), "right")
        shared = tf.reshape(tf.transpose(tf.gather(values, codes, batch_dims=1)), own.shape)
        return (shared + (own - tf.stop_gradient(own))) * tf.constant(self.mask, "float32")


def cluster(work: Work, settings: Settings) -> Work:
    """Cluster and fine-tune; `work.codebooks` says which element takes which value.

    Raises:
        BadInput: a pattern matches no weight, or fewer than 2 clusters are asked for.
    """
    chosen, skipped = targets(work, settings)
    books: dict[str, Codebook] = {}
    for one in chosen:
        count = setting_of(one.path, settings.clusters, [other.path for other in chosen])
        if count is None:
            continue
        if count < 2:
            raise BadInput("pass 'cluster'", f"clusters {count} is too few", "give 2 or more")
        if count >= one.weight.size:
            skipped.append(Skipped(layer=one.path, reason=f"has {one.weight.size} elements, no more than clusters"))
        else:
            books[one.path] = codebook(one.weight, work.masks.get(one.path), count, settings.per == "channel")
    work = work.skipping(*skipped)
    if not books:
        return work
    if settings.moving and settings.epochs:
        work, books = _moved(work, books, settings)
    work = replace(work, codebooks={**work.codebooks, **books})
    rest = settings.model_copy(update={"epochs": settings.epochs * (1 - settings.moving)})
    trained = fine_tune(work.model, work.bench, rest, held(work), "training shared values")
    books = kept(work, {path: trained.parameters[path][0] for path in work.codebooks})
    done = replace(work, model=trained.model, codebooks=books)
    used = {one.path: len(np.unique(books[one.path].codes)) for one in chosen if one.path in books}
    return done.noting("cluster", values=used)


def codebook(weight: Array, mask: Mask | None, count: int, per_channel: bool) -> Codebook:
    """The start: `count` values at most, of which the first is a fixed zero if there is a mask."""
    rows = weight.reshape(-1, weight.shape[-1] if per_channel else 1)
    open_rows = np.ones(rows.shape, bool) if mask is None else mask.reshape(rows.shape)
    zero = int(mask is not None)
    centres = [
        kmeans(row[stays], count - zero) if stays.any() else np.zeros(1, np.float32)
        for row, stays in zip(rows.T, open_rows.T, strict=True)
    ]
    most = max(map(len, centres))
    values = np.stack([np.pad(centre, (0, most - len(centre)), mode="edge") for centre in centres], axis=1)
    codes = np.stack([nearest(row, column) for row, column in zip(rows.T, values.T, strict=True)], axis=1)
    if zero:
        values = np.concatenate([np.zeros_like(values[:1]), values])
        codes = np.where(open_rows, codes + 1, 0)
    fixed = np.arange(len(values)) < zero
    return Codebook(values if per_channel else values[:, 0], codes.reshape(weight.shape).astype(np.int32), fixed)


def _moved(work: Work, books: dict[str, Codebook], settings: Settings) -> tuple[Work, dict[str, Codebook]]:
    """Train with elements that move: the model afterwards, and the codebooks it leaves."""
    part = settings.model_copy(update={"epochs": settings.epochs * settings.moving})
    masks = {path: work.masks.get(path, np.ones(book.codes.shape, bool)) for path, book in books.items()}
    moving: dict[str, Parametrization] = {path: Moving(book, masks[path]) for path, book in books.items()}
    trained = fine_tune(work.model, work.bench, part, {**held(work), **moving}, "clustering")
    after = kept(work, {path: trained.parameters[path][0] for path in work.codebooks})
    found = {}
    for path, book in books.items():
        values = np.sort(trained.parameters[path][1], axis=1).T  # (k, channels)
        own = trained.parameters[path][0].reshape(-1, values.shape[1])
        codes = np.stack([nearest(row, column) for row, column in zip(own.T, values.T, strict=True)], axis=1)
        zero = int(book.fixed.sum())
        codes = np.where(masks[path].reshape(codes.shape), codes + zero, 0) if zero else codes
        values = np.concatenate([np.zeros((zero, values.shape[1]), np.float32), values])
        shaped = values if book.values.ndim == 2 else values[:, 0]
        found[path] = replace(book, values=shaped, codes=codes.reshape(book.codes.shape).astype(np.int32))
    return replace(work, model=trained.model, codebooks=after), found
