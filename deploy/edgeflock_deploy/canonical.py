"""One spelling of a JSON value, so that a hash or a signature speaks of the value and not of its layout."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def canonical_json(value: Any) -> bytes:
    """Encode a JSON value: keys sorted, no blanks, UTF-8, no NaN (the rules of RFC 8785 for our value range).

    Raises:
        ValueError: the value holds NaN or an infinity.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def sha256_hex(data: bytes | memoryview) -> str:
    """SHA-256 of the bytes, as 64 lower-case hex digits: the name of a blob, a chunk or a bundle."""
    return hashlib.sha256(data).hexdigest()
