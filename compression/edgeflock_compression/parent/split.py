"""Which items serve for what.

Three sets never meet: x_train is parted, before anything is trained, into items to train on (calibration draws from
these) and items to validate a search with; x_test certifies, and from it come the few items that travel with a bundle.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeflock_compression.parent.data import Array, Arrays, FittedData
from edgeflock_deploy.bundle import Task
from edgeflock_deploy.cases import Evaluation
from edgeflock_deploy.scoring import Kind, variance

CALIBRATION_ITEMS = 512
VALIDATION_ITEMS = 5000
_VALIDATION_SHARE = 5  # one item in five, if that is fewer
EVALUATION_ITEMS = 256
EVALUATION_BYTES = 512 * 1024
LARGE_ITEMS_BYTES = 16 << 20  # without a slice no board can compare anything: of large items as many as golden ones
_HEADER_BYTES = 2048  # the .npy headers and the zip directory
GOLDEN_ITEMS = 8
_AGREEMENT_SHARE = 0.05  # regression: answers agree within this share of the targets' standard deviation


@dataclass(frozen=True)
class Split:
    """What passes and searches may look at: x_train, parted. Inputs are tuples, one array per input of the model.

    Args:
        x_fit: items to train on.
        y_fit: their labels.
        x_validation: items to compare candidates on.
        y_validation: their labels.
        kind: what the labels are.
        sha256: of the whole data, test items included.
    """

    x_fit: Arrays
    y_fit: Array
    x_validation: Arrays
    y_validation: Array
    kind: Kind
    sha256: str

    def calibration(self, items: int, seed: int) -> Arrays:
        """Items to find activation ranges with, drawn from those to train on; all of them if there are fewer."""
        chosen = stratified(self.y_fit, items, seed)
        return tuple(x[chosen] for x in self.x_fit)


def split(data: FittedData, seed: int) -> Split:
    """Part x_train; the same data and seed give the same parts."""
    count = validation_count(len(data.y_train))
    held = np.zeros(len(data.y_train), bool)
    held[stratified(data.y_train, count, seed)] = True
    return Split(
        x_fit=tuple(x[~held] for x in data.x_train),
        y_fit=data.y_train[~held],
        x_validation=tuple(x[held] for x in data.x_train),
        y_validation=data.y_train[held],
        kind=data.kind,
        sha256=data.sha256,
    )


def validation_count(items: int) -> int:
    """How many of the items of x_train serve to validate with; the others are trained on."""
    return min(VALIDATION_ITEMS, items // _VALIDATION_SHARE)


def stratified(y: Array, count: int, seed: int) -> NDArray[np.int64]:
    """Indices of `count` items (all if there are fewer), spread evenly over the classes or the range of the targets.

    The same arguments give the same indices in the same order.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(y))
    if y.ndim == 1:  # take turns among the classes: first of each class, second of each, ...
        turn = np.empty(len(y), np.int64)
        for label in np.unique(y):
            members = np.flatnonzero(y[order] == label)
            turn[members] = np.arange(len(members))
        return order[np.argsort(turn, kind="stable")][:count]
    by_target = order[np.argsort(y[order, 0], kind="stable")]
    every = np.linspace(0, len(y) - 1, min(count, len(y))).round().astype(np.int64)
    return rng.permutation(by_target[every])


def evaluation_slice(data: FittedData, seed: int) -> Evaluation | None:
    """The labelled items that travel with the bundle; None if a single one is larger than a slice may be."""
    item_bytes = sum(x[0].nbytes for x in data.x_test) + data.y_test[0].nbytes
    usual, of_large = ((most - _HEADER_BYTES) // item_bytes for most in (EVALUATION_BYTES, LARGE_ITEMS_BYTES))
    chosen = stratified(data.y_test, min(EVALUATION_ITEMS, max(usual, min(GOLDEN_ITEMS, of_large))), seed)
    return Evaluation(tuple(x[chosen] for x in data.x_test), data.y_test[chosen]) if len(chosen) else None


def task_of(data: FittedData, evaluation: Evaluation | None) -> Task:
    """What kind of task the data is, and how answers to it are scored on boards that have this evaluation slice."""
    if data.kind == "classification":
        return Task(kind="classification", metric="accuracy")
    spread = variance(data.y_test if evaluation is None else evaluation.y)
    atol = _AGREEMENT_SHARE * float(np.sqrt(variance(data.y_test)))
    return Task(kind="regression", metric="r2", agreement_atol=atol, target_variance=spread)


def golden_inputs(data: FittedData, seed: int) -> Arrays:
    """The few items whose outputs a device compares before a variant may serve."""
    chosen = stratified(data.y_test, GOLDEN_ITEMS, seed)
    return tuple(x[chosen] for x in data.x_test)


def one(arrays: Arrays, index: int) -> list[Any]:
    """Item `index` of each input, with a batch of 1: what a converter's representative data yields."""
    return [array[index : index + 1] for array in arrays]
