"""How much each channel matters: the criteria of structured pruning.

Decided here: the number; not what is done with it. A score is 0 for a channel that does nothing; scores of one
criterion compare over the whole model. A channel that several layers make together gets one score.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeflock_compression.channels.groups import Channels
from edgeflock_compression.graph.flat import weights_by_path
from edgeflock_compression.graph.logits import logit_model
from edgeflock_compression.parent.split import stratified
from edgeflock_compression.tf_import import keras, tensorflow
from edgeflock_compression.training.loss import training_loss
from edgeflock_compression.work import Bench

Scores = NDArray[np.float64]
_BATCH_ITEMS = 128  # per gradient


def l1_scores(model: Any, channels: Channels) -> Scores:
    """Sum of the absolute weights of a filter (Li et al. 2017, arXiv:1608.08710) over the mean of its layer's filters.

    Args:
        model: flat functional model.
        channels: what `find_channels` said about it.

    Returns:
        By label, the mean over the layers that make the channel; NaN for channels that none makes.
    """
    weights = weights_by_path(model)
    total, count = np.zeros(channels.count), np.zeros(channels.count)
    for site in channels.sites.values():
        if site.kernel is not None:
            norms = np.moveaxis(np.abs(weights[site.kernel]), site.kernel_axis, 0).reshape(len(site.made), -1).sum(1)
            _add(total, site.made, norms / (norms.mean() or 1.0))
            _add(count, site.made, np.ones(len(norms)))
    return _mean(total, count)


def norm_scores(model: Any, channels: Channels) -> Scores:
    """Absolute scale of the batch norms that a channel passes (Liu et al. 2017, network slimming, arXiv:1708.06519).

    Returns:
        By label, the mean over those batch norms; NaN for channels that pass none.
    """
    weights = weights_by_path(model)
    total, count = np.zeros(channels.count), np.zeros(channels.count)
    for site in channels.sites.values():
        gamma = getattr(site.layer, "gamma", None)
        if type(site.layer).__name__ == "BatchNormalization" and gamma is not None:
            labels = site.axes[gamma.path][0]
            _add(total, labels, np.abs(weights[gamma.path]))
            _add(count, labels, np.ones(len(labels)))
    return _mean(total, count)


def taylor_scores(model: Any, channels: Channels, bench: Bench, items: int) -> Scores:
    """First-order change of the loss if the channel were zero (Molchanov et al. 2019, arXiv:1906.10771).

    Per batch, weight times gradient is summed over what scales the channel (the batch norm that directly follows, else
    filter and bias) in all layers that make it; the score is the root of its mean square over the batches, and so in
    units of the loss. Statistics of batch norms stand still. A second output counts by its mean square, since labels
    speak of the first only.

    Args:
        model: flat functional model.
        channels: what `find_channels` said about it.
        bench: whose training items are used.
        items: how many of them.

    Returns:
        By label; NaN for channels that no layer makes.
    """
    sources = _scaling_weights(channels)
    by_path = {variable.path: variable for variable in model.weights}
    values = {path: np.asarray(by_path[path], np.float64) for path, _, _ in sources}
    total, batches, made = np.zeros(channels.count), 0, np.zeros(channels.count, bool)
    for _, _, labels in sources:
        made[labels] = True
    for gradients in _gradients(model, bench, list(values), items):
        change = np.zeros(channels.count)
        for path, axis, labels in sources:
            products = np.moveaxis(values[path] * gradients[path], axis, 0)
            _add(change, labels, products.reshape(len(labels), -1).sum(axis=1))
        total += change**2
        batches += 1
    return np.where(made, np.sqrt(total / max(batches, 1)), np.nan)


def _scaling_weights(channels: Channels) -> list[tuple[str, int, NDArray[np.int64]]]:
    """(weight path, axis of the channels, their labels) of the weights that scale what a layer makes."""
    found = []
    for name, site in channels.sites.items():
        if site.kernel is None:
            continue
        norm = channels.sites.get(channels.norm_of.get(name, ""))
        if norm is not None and getattr(norm.layer, "gamma", None) is not None:
            scales = [part for part in (norm.layer.gamma, norm.layer.beta) if part is not None]
            found += [(part.path, 0, norm.axes[part.path][0]) for part in scales]
        else:
            found.append((site.kernel, site.kernel_axis, site.made))
            found += [] if site.bias is None else [(site.bias, 0, site.made)]
    return found


def _gradients(model: Any, bench: Bench, paths: list[str], items: int) -> Any:
    """By batch: weight path -> gradient of the loss, with the model as it is when it serves."""
    tf, module = tensorflow(), keras()
    kind, data = bench.data.kind, bench.data
    bare = logit_model(model) if kind == "classification" else model
    by_path = {variable.path: variable.value for variable in bare.weights}
    watched = [by_path[path] for path in paths]

    def gradients(parts: Any, labels: Any) -> Any:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(watched)
            given = parts[0] if len(parts) == 1 else module.tree.pack_sequence_as(bare.input, parts)
            outputs = module.tree.flatten(bare(given, training=False))
            loss = training_loss(kind, outputs[0], labels, None)
            loss += sum(tf.reduce_mean(tf.square(tf.cast(other, loss.dtype))) for other in outputs[1:])
        return tape.gradient(loss, watched, unconnected_gradients=tf.UnconnectedGradients.ZERO)

    compiled = tf.function(gradients, reduce_retracing=True)
    rows = stratified(data.y_fit, items, bench.seed)
    for start in range(0, len(rows), _BATCH_ITEMS):
        chosen = rows[start : start + _BATCH_ITEMS]
        found = compiled([tf.constant(part[chosen]) for part in data.x_fit], tf.constant(data.y_fit[chosen]))
        yield {path: np.asarray(gradient, np.float64) for path, gradient in zip(paths, found, strict=True)}


def _add(total: Scores, labels: NDArray[np.int64], numbers: NDArray[Any]) -> None:
    np.add.at(total, labels, numbers)


def _mean(total: Scores, count: Scores) -> Scores:
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
