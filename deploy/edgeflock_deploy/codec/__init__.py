"""The wire codec: a file to a small container, and back bit for bit.

`encode` runs at headquarters, `decode` on boards. docs/wire_codec.md specifies the format so that a stranger could
write a decoder. Importing this package brings the decoder only.
"""

from __future__ import annotations

from collections.abc import Sequence

from edgeflock_deploy.codec.container import base_of, decode
from edgeflock_deploy.codec.wire import CodecError

__all__ = ["CodecError", "base_of", "decode", "encode"]


def encode(
    data: bytes,
    base: bytes | None = None,
    decode_budget_s: float = 2.0,
    hashes: Sequence[tuple[int, int]] = (),
) -> bytes:
    """The smallest container of `data` that a slow board decodes within about `decode_budget_s` seconds.

    Args:
        data: any bytes; a `.tflite` is cut at its constants.
        base: a file that the receiver has; the container may then need it (`base_of`).
        decode_budget_s: seconds of one core of a Raspberry Pi 4 for arithmetic decoding (`codec.decode_time`).
        hashes: (seed, buckets) of tensors that may be hashed (`codec.weight_hash`).
    """
    from edgeflock_deploy.codec import encoder

    return encoder.encode(data, base, decode_budget_s, hashes)
