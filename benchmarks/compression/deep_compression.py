"""LeNet-300-100 and LeNet-5 pruned, clustered and packed, against Deep Compression (Han et al. 2016, arXiv:1510.00149).

Each variant is certified against its own parent on the 10,000 test digits at 0.25 points. The factor is the parent's
float `.tflite` in bytes over the container's bytes, as it travels.
"""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks import table
from benchmarks.compression.parents import parent
from edgeflock_compression.pipeline import RecipesFailed, compress
from edgeflock_compression.variant import Variant

RECIPES = Path(__file__).parent / "recipes"
ANCHORS = {"lenet_300_100": "40x at 1.58 %, Han 2016", "lenet_5": "39x at 0.74 %, Han 2016; 162x at 0.97 %"}


def variants(name: str, seed: int) -> list[Variant]:
    """The variants of one parent: float32 first, then every recipe here whose file begins with its name."""
    model, data = parent(name)
    recipes = ["float32", *map(str, sorted(RECIPES.glob(f"{name}_*.toml")))]
    out = Path("build/bench/deep_compression") / name / f"seed{seed}"
    try:
        return compress(model, data, recipes, out, seed, margin=0.25)
    except RecipesFailed as failed:
        sys.stderr.write(f"{failed}\n")
        return failed.variants


def main() -> None:
    """Make the variants and write the table."""
    names, rows = sys.argv[1:] or list(ANCHORS), []
    for name in names:
        first, *rest = variants(name, seed=0)
        for variant in (first, *rest):
            certificate = variant.certificate
            assert certificate is not None
            error = 100 * (1 - (variant.accuracy or 0))
            rows.append(
                (
                    variant.name,
                    f"{variant.raw_bytes:,} / {variant.wire_bytes:,} / {variant.ram_bytes or 0:,}",
                    f"{first.raw_bytes / variant.wire_bytes:.1f}x",
                    f"{error:.2f} %",
                    f"{certificate.b} / {certificate.c}",
                    f"{certificate.loss_upper_95:.2f} pt",
                    "yes" if certificate.certified else "no",
                    ANCHORS[name] if variant is not first else "the parent",
                )
            )
    header = (
        "variant",
        "bytes raw / wire / RAM",
        "factor",
        "error",
        "lost / won",
        "loss at most",
        "certified at 0.25 pt",
        "anchor",
    )
    note = "Error on 10,000 test digits, n = 10,000; seed 0, 2 threads. RAM is the peak that loading and running adds."
    table.write("compression/deep_compression", "python -m benchmarks.compression.deep_compression", header, rows, note)


if __name__ == "__main__":
    main()
