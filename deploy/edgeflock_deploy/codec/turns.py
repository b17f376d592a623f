"""How much work a container may ask for: counted in turns as its sections are read, refused before any is decoded.

A turn stands for what numpy does at a time, some 60 us of an x86-64 core. What is linear in the bytes of container,
file and base is not counted: they are known and limited. What is counted is what a few bytes of container can ask for:
arithmetic decoding, and sections as such. The limit belongs to the format; the encoder's budget stays far below it.
"""

from __future__ import annotations

from edgeflock_deploy.codec import palette_model, smooth_model

SECTION = 1  # of any kind


def of_palette(form: palette_model.Form) -> int:
    """Turns of the palette model.

    How many elements are not zero shows in decoding only: the second pass is charged for a share of them.
    """
    count, steps = form.rows * form.columns, form.rows + form.columns
    passes = 1 + (max(form.negatives, form.positives, 1) - 1).bit_length()
    zeros = steps if form.zero else 0
    return 16 + zeros + passes * min(steps, 56 + count // 1024) + count // 256 + passes * count // 2048


def of_smooth(form: smooth_model.Form) -> int:
    """Turns of the smooth model."""
    return 64 + 4 * (form.rows + form.columns) + form.rows * form.columns // 128
