"""The quick estimate of bytes on the wire."""

import numpy as np

from edgeflock_compression.tflite.wire_estimate import wire_estimate


def test_what_is_no_tflite_counts_as_what_zstd_makes_of_it() -> None:
    assert wire_estimate(b"\0" * 10_000) < 100
    noise = np.random.default_rng(0).bytes(10_000)
    assert 10_000 <= wire_estimate(noise) < 10_100
    assert wire_estimate(b"") < 20
