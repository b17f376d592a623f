"""`pack`: the file as it travels, each constant coded by what is smallest for it (see `edgeflock_deploy.codec`).

The last pass of every recipe: one that does not name it has it with its defaults, for nothing ships unpacked. A board
unpacks once per update, with one core, so the encoder holds to a budget of the board's seconds, not of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pydantic import ConfigDict, Field

from edgeflock_compression.work import Work
from edgeflock_deploy.bundle import DECODE_BUDGET_S, encode_blob
from edgeflock_deploy.messages.values import Frozen


class Settings(Frozen):
    """Settings of the pass."""

    model_config = ConfigDict(extra="forbid")

    decode_s: float = Field(DECODE_BUDGET_S, ge=0, le=DECODE_BUDGET_S)  # of one core of a Raspberry Pi 4, estimated


def decode_budget(recipe: Mapping[str, Any]) -> float:
    """Seconds that a board may take to unpack, of a recipe as plain data, such as a variant's record holds."""
    steps = [step for step in recipe.get("pass", ()) if step.get("use") == "pack"]
    return float(steps[-1].get("decode_s", DECODE_BUDGET_S)) if steps else DECODE_BUDGET_S


def pack(work: Work, settings: Settings) -> Work:
    """Encode the `.tflite`; `work.packed` is the result.

    Raises:
        ValueError: no pass converted the model.
    """
    if work.tflite is None:
        raise ValueError("no pass converted the model")
    return replace(work, packed=encode_blob(work.tflite, (), work.hashes, decode_s=settings.decode_s))
