"""A plain CNN over 32x32 pixels made faster: channels removed, then trained by its own parent (distillation).

MNIST with a black margin, 20,000 digits to train with. Latency is that of LiteRT's interpreter with one thread, both
files in one run, interleaved (`edgeflock-agent bench --against`), as a ratio. The anchor, AMC (He et al. 2018,
arXiv:1802.03494), reports 1.8 to 1.95 times for MobileNet on a phone.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from benchmarks import table
from benchmarks.compression.parents import parent
from edgeflock_compression.pipeline import compress

OUT = Path("build/bench/faster_cnn")
RECIPE = Path(__file__).parent / "recipes" / "plain_cnn_ch.toml"


def latency_ratio(name: str, against: str) -> dict[str, float]:
    """Median of the paired ratios of two variants' latencies, with its interval."""
    command = [str(Path(sys.executable).with_name("edgeflock-agent")), "bench", str(OUT / name / "model.tflite")]
    command += ["--against", str(OUT / against / "model.tflite"), "--json"]
    said = subprocess.run(command, check=True, capture_output=True, text=True)
    ratio: dict[str, float] = json.loads(said.stdout)["ratio"]
    return ratio


def main() -> None:
    """Make the variant, measure both and write the table."""
    model, data = parent("plain_cnn")
    first, *rest = compress(model, data, ["float32", str(RECIPE), *sys.argv[1:]], OUT, threads=1, margin=1.0)
    rows: list[tuple[object, ...]] = []
    for variant in (first, *rest):
        ratio = latency_ratio(variant.name, first.name)
        certificate = variant.certificate
        assert certificate is not None
        rows.append(
            (
                variant.name,
                f"{variant.raw_bytes:,} / {variant.wire_bytes:,} / {variant.ram_bytes or 0:,}",
                f"{1 / ratio['median']:.2f}x ({1 / ratio['high']:.2f} to {1 / ratio['low']:.2f})",
                f"{variant.accuracy:.2%}",
                f"{certificate.loss_upper_95:.2f} pt",
                "yes" if certificate.certified else "no",
            )
        )
    table.write(
        "compression/faster_cnn",
        "python -m benchmarks.compression.faster_cnn",
        ("variant", "bytes raw / wire / RAM", "speed of the parent", "accuracy", "loss at most", "certified at 1 pt"),
        rows,
        "Reach: 3x at a loss of at most 1 pt. Seed 0, 1 thread; n = 10,000 test digits.",
    )


if __name__ == "__main__":
    main()
