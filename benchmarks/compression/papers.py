"""Techniques against the papers that they come from, on all of MNIST: distillation, hashing, ternary weights.

One variant each, seed 0. Recipes stand here; what was tried before stands in the README beside this file.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

from benchmarks import table
from benchmarks.compression import mnist
from benchmarks.compression.parents import parent
from edgeflock_compression.pipeline import compress
from edgeflock_compression.variant import Variant

RECIPES = Path(__file__).parent / "recipes"
OUT = Path("build/bench/papers")


class Workload(NamedTuple):
    """One row: a parent, a recipe, and what the paper says."""

    parent: str
    recipe: str
    reach: str
    anchor: str


WORKLOADS = (
    Workload(
        "teacher_2x1200",
        "student_2x800",
        "at most 80 errors",
        "Hinton 2015: teacher 67, student 74, student alone 146",
    ),
    Workload("dense_1000", "hash_1000", "at most 3.0 %, push 2.8 %", "Chen 2015: 2.79 % at 1/64"),
    Workload("dense_1000", "hash_1000_kd", "the same, taught by its parent", "Chen 2015: 2.79 % at 1/64"),
    Workload("lenet_5", "ternary_lenet_5", "within 0.15 pt of float, 20x on the wire", "Zhu 2017: trained ternary"),
)


def rows_of(workload: Workload) -> list[tuple[object, ...]]:
    """The parent's row and the variant's."""
    model, data = parent(workload.parent)
    if workload.recipe == "student_2x800":
        parent("alone_2x800")  # the student's file, drawn anew by the recipe, and what it makes alone
        data = mnist.data((784,), copies=4)  # to learn from the teacher, moved digits too
    recipes = ["float32", str(RECIPES / f"{workload.recipe}.toml")]
    made = compress(model, data, recipes, OUT / workload.parent, threads=1, margin=0.25)
    first = made[0]
    rows = [_row(workload.parent, "", first, first), _row(made[1].name, workload.reach, made[1], first)]
    if workload.recipe == "student_2x800":
        alone, data = parent("alone_2x800")
        own = compress(alone, data, ["float32"], OUT / "alone_2x800", threads=1)[0]
        rows.insert(1, _row("the student alone", "", own, own))
    return [(*row, workload.anchor) for row in rows]


def _row(name: str, reach: str, variant: Variant, first: Variant) -> tuple[object, ...]:
    errors = round(variant.n_items * (1 - (variant.accuracy or 0)))
    certificate = variant.certificate
    bound = f"{certificate.loss_upper_95:.2f} pt" if certificate and variant is not first else ""
    sizes = f"{variant.raw_bytes:,} / {variant.wire_bytes:,} / {variant.ram_bytes or 0:,}"
    factor = f"{first.raw_bytes / variant.wire_bytes:.1f}x"
    return name, sizes, factor, f"{errors} ({errors / variant.n_items:.2%})", bound, reach


def main() -> None:
    """Make the variants and write the table."""
    chosen = [one for one in WORKLOADS if not sys.argv[1:] or one.recipe in sys.argv[1:]]
    rows = [row for workload in chosen for row in rows_of(workload)]
    if len(chosen) < len(WORKLOADS):
        sys.stdout.writelines(f"{row}\n" for row in rows)
        return
    table.write(
        "compression/papers",
        "python -m benchmarks.compression.papers",
        ("variant", "bytes raw / wire / RAM", "wire factor", "errors of 10,000", "loss at most", "reach", "anchor"),
        rows,
        "Seed 0, 1 thread. The factor is the parent's float .tflite over the container; the loss is against the\n"
        "parent, a one-sided 95 % bound from the same 10,000 test digits.",
    )


if __name__ == "__main__":
    main()
