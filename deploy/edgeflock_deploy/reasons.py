"""Reason codes: why a device refused, stopped or took back a variant.

A code blames either the variant (`blames_variant`: the rollout must fail wherever it is seen first) or the device and
its surroundings (the device is set aside, the rollout goes on).
"""

from __future__ import annotations

from enum import Enum


class Reason(str, Enum):
    """Why a device left the straight path, as reported on the wire."""

    # the bundle cannot be trusted or does not belong here
    SIGNATURE_INVALID = "SIGNATURE_INVALID"
    MANIFEST_INVALID = "MANIFEST_INVALID"
    BLOB_HASH_MISMATCH = "BLOB_HASH_MISMATCH"
    CHUNK_HASH_MISMATCH = "CHUNK_HASH_MISMATCH"
    VERSION_TOO_OLD = "VERSION_TOO_OLD"
    NOT_ALLOWED_HERE = "NOT_ALLOWED_HERE"
    KNOWN_BAD = "KNOWN_BAD"
    # hard stops: the variant misbehaved on this device
    LOAD_FAILED = "LOAD_FAILED"
    OPERATOR_MISSING = "OPERATOR_MISSING"  # this runtime lacks an operator of the model
    LOAD_CRASHED = "LOAD_CRASHED"
    HUNG = "HUNG"
    CRASHED = "CRASHED"
    CRASH_LOOP = "CRASH_LOOP"
    NAN_OUTPUT = "NAN_OUTPUT"
    GOLDEN_MISMATCH = "GOLDEN_MISMATCH"
    MEMORY_OVER_BUDGET = "MEMORY_OVER_BUDGET"
    TOO_SLOW = "TOO_SLOW"  # for the latency that its publisher declared
    # the device or its surroundings
    DISK_FULL = "DISK_FULL"
    DISK_ERROR = "DISK_ERROR"
    DOWNLOAD_STALLED = "DOWNLOAD_STALLED"
    EXPIRED = "EXPIRED"
    TRIAL_UNCONFIRMED = "TRIAL_UNCONFIRMED"
    NO_ROOM = "NO_ROOM"  # no memory to measure it beside what serves
    NO_ROLLBACK_TARGET = "NO_ROLLBACK_TARGET"
    INCUMBENT_CRASH_LOOP = "INCUMBENT_CRASH_LOOP"  # what served before, and is not the rollout's bundle, keeps crashing
    INTERNAL = "INTERNAL"

    @property
    def blames_variant(self) -> bool:
        """Whether the variant, not the device, is to blame."""
        return self in _VARIANT

    @property
    def does_not_fit(self) -> bool:
        """Whether, met while a variant is loaded, checked and measured, it says that it does not fit this device.

        Another variant of the same bundle may. What a variant does later, while it is tried, is not judged by this.
        """
        return self in _MISFIT


_VARIANT = frozenset(
    {
        Reason.SIGNATURE_INVALID,
        Reason.MANIFEST_INVALID,
        Reason.BLOB_HASH_MISMATCH,
        Reason.KNOWN_BAD,
        Reason.LOAD_FAILED,
        Reason.OPERATOR_MISSING,
        Reason.LOAD_CRASHED,
        Reason.HUNG,
        Reason.CRASHED,
        Reason.CRASH_LOOP,
        Reason.NAN_OUTPUT,
        Reason.GOLDEN_MISMATCH,
        Reason.MEMORY_OVER_BUDGET,
        Reason.TOO_SLOW,
    }
)
_MISFIT = frozenset(
    {
        Reason.LOAD_FAILED,
        Reason.OPERATOR_MISSING,
        Reason.LOAD_CRASHED,
        Reason.HUNG,
        Reason.CRASHED,
        Reason.NAN_OUTPUT,
        Reason.GOLDEN_MISMATCH,
        Reason.MEMORY_OVER_BUDGET,
        Reason.TOO_SLOW,
    }
)
