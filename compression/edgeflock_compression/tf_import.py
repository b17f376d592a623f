"""TensorFlow, imported where it is used and quietly: it takes seconds and hundreds of megabytes.

Nothing else in this package imports TensorFlow or Keras at its top, so that `edgeflock --help` costs nothing.
"""

from __future__ import annotations

import logging
import os
from typing import Any

from edgeflock_deploy.errors import BadInput


def tensorflow() -> Any:
    """The module `tensorflow`, with its chatter off and Keras on the TensorFlow backend.

    Raises:
        BadInput: it is not installed, or Keras runs on another backend already.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # the same sums on every CPU, and one warning less
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    try:
        import tensorflow as tf
    except ImportError:
        mend = "install edgeflock with the extra 'compression'"
        raise BadInput("TensorFlow", "is not installed", mend) from None
    tf.get_logger().setLevel(logging.ERROR)
    return tf


def keras() -> Any:
    """The module `keras`; raises what `tensorflow` raises."""
    tensorflow()
    import keras as module

    if module.backend.backend() != "tensorflow":
        raise BadInput("Keras", f"runs on {module.backend.backend()}", "set KERAS_BACKEND=tensorflow")
    return module


def deterministic(threads: int) -> None:
    """Have TensorFlow give the same bits at every run: deterministic operators, and this many threads.

    The number of threads decides the order of sums, hence it belongs to a variant's provenance. Call it in a fresh
    process, before TensorFlow has computed anything.
    """
    tf = tensorflow()
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.config.experimental.enable_op_determinism()
