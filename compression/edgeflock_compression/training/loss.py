"""What training makes small: the labels' loss, mixed with the distance to a teacher's softened answers.

Hinton, Vinyals, Dean 2015 (arXiv:1503.02531): (1 - alpha) * cross-entropy with the labels + alpha * T^2 *
cross-entropy with the teacher's distribution at temperature T. For a regression both parts are squared errors.
"""

from __future__ import annotations

from typing import Any

from edgeflock_compression.tf_import import tensorflow
from edgeflock_deploy.scoring import Kind

_TINY = 1e-37  # what a float32 can just hold


def teacher_logits(answers: Any, are_distribution: bool) -> Any:
    """Logits (n, ..., classes) of a teacher's answers; of a distribution the logarithm, which softmax turns back."""
    tf = tensorflow()
    return tf.math.log(tf.maximum(answers, _TINY)) if are_distribution else answers


def training_loss(
    kind: Kind, given: Any, labels: Any, teacher: Any | None, temperature: float = 1.0, alpha: float = 0.0
) -> Any:
    """Mean loss of a batch, a scalar tensor.

    Args:
        kind: classification or regression.
        given: logits (n, classes), or values (n, k).
        labels: classes (n,) integers, or targets (n, k).
        teacher: the teacher's logits or values of the same shape as `given`; None without one.
        temperature: T > 0, for a classification.
        alpha: share of the teacher, 0 to 1.
    """
    tf = tensorflow()
    flat = tf.reshape(given, (tf.shape(given)[0], -1))
    if kind == "regression":
        own = tf.reduce_mean(tf.square(flat - tf.cast(labels, flat.dtype)))
        if teacher is None or alpha == 0:
            return own
        far = tf.reduce_mean(tf.square(flat - tf.reshape(teacher, tf.shape(flat))))
        return (1 - alpha) * own + alpha * far
    own = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, flat))
    if teacher is None or alpha == 0:
        return own
    soft = tf.nn.softmax(tf.reshape(teacher, tf.shape(flat)) / temperature)
    far = tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(soft, flat / temperature))
    return (1 - alpha) * own + alpha * temperature**2 * far
