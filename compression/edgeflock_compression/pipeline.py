"""`compress`: a trained model and its data go in, measured and certified variants with their provenance come out.

from pathlib import Path
from edgeflock_compression.pipeline import compress

for variant in compress(Path("lenet.keras"), Path("data.npz"), ["dynamic_wi8"], Path("variants")):
    print(variant.name, variant.raw_bytes, variant.accuracy)

TensorFlow runs in workers, one for all recipes with the same training passes; this process never imports it.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any, NamedTuple

from edgeflock_compression.making import Order
from edgeflock_compression.nursery import worker
from edgeflock_compression.parent.data import load_data
from edgeflock_compression.proof.certificate import holm
from edgeflock_compression.proof.metrics import metric_named
from edgeflock_compression.recipe import Recipe, load_recipes
from edgeflock_compression.variant import Variant, write_bytes, write_record
from edgeflock_deploy.errors import BadInput, EdgeflockError

OnProgress = Callable[["Progress"], None]
MEASURED_FILE = ".measured"  # what was measured into a folder so far: a line of data and file, by their SHA-256, each
_TAIL_BYTES = 2000
_QUIET_S = 0.5  # so long a caller waits at most before it may look at its clock


class Progress(NamedTuple):
    """What is being done now: `done` recipes of `total` are ready; `share` of what is being done is."""

    done: int
    total: int
    what: str
    share: float = 0.0


class RecipesFailed(EdgeflockError):
    """Some recipes gave no variant; the others did.

    Args:
        variants: what came out.
        failures: recipe -> why it gave none.
    """

    def __init__(self, variants: list[Variant], failures: Mapping[str, str]) -> None:
        super().__init__("; ".join(f"recipe '{name}': {why}" for name, why in failures.items()))
        self.variants, self.failures = variants, failures


def compress(
    model: Path,
    data: Path,
    recipes: Sequence[str],
    out: Path,
    seed: int = 0,
    on_progress: OnProgress = lambda _: None,
    **options: Any,
) -> list[Variant]:
    """Make one variant per recipe.

    Writes `out/NAME/model.tflite` and `out/NAME/variant.json` for each, and beside them `evaluation.npz` (labelled
    items for the boards) and `golden_inputs.npz`, so that `out` is all that publishing needs. What training passes gave
    is kept in `out/.passes`, so that a run that was stopped goes on after its last finished pass.

    Args:
        model: a `.keras` or `.h5` file, a SavedModel folder or a float `.tflite`.
        data: an `.npz` with x_train, y_train, x_test, y_test.
        recipes: names or files; empty for the five quantizations without training.
        out: folder to write to; made if it does not exist.
        seed: for everything random.
        on_progress: is told what happens now.
        options: the rest of `making.Order`: threads, metric, margin, candidates_seen.

    Raises:
        BadInput: the model, the data or a recipe cannot be used; nothing was written.
        RecipesFailed: after all recipes were tried, if some gave no variant.
    """
    order = Order(model, data, out, seed, **options)
    chosen = load_recipes(recipes)  # what is cheap to check comes before TensorFlow is started
    if order.metric:
        metric_named(order.metric)
    load_data(data)
    return make_variants(order, chosen, on_progress)


def make_variants(order: Order, recipes: Sequence[Recipe], on_progress: OnProgress) -> list[Variant]:
    """`compress` for recipes that are loaded already; raises the same."""
    variants: dict[str, Variant] = {}
    failures: dict[str, str] = {}
    for group in by_training(recipes):
        now = Progress(len(variants) + len(failures), len(recipes), f"opening {order.model.name}")
        on_progress(now)
        for kind, value in work_of(order, group):
            if kind == "tell":
                now = now._replace(what=value[0], share=value[1])
            elif kind == "variant":
                variant = Variant.model_validate(value)
                variants[variant.name] = variant
            elif kind == "failed":
                failures[value[0]] = value[1]
            elif kind == "bad_input":
                raise BadInput(*value)
            else:
                continue
            now = now._replace(done=len(variants) + len(failures))
            on_progress(now)
    shipped = judged_together([variants[recipe.name] for recipe in recipes if recipe.name in variants], order.out)
    if failures:
        raise RecipesFailed(shipped, failures)
    return shipped


def by_training(recipes: Sequence[Recipe]) -> list[list[Recipe]]:
    """Recipes with the same passes before the conversion, together, in the order in which they were given."""
    groups: dict[str, list[Recipe]] = {}
    for recipe in recipes:
        groups.setdefault(json.dumps([step.as_dict() for step in recipe.trainings]), []).append(recipe)
    return list(groups.values())


def work_of(order: Order, recipes: Sequence[Recipe]) -> Generator[tuple[str, Any], None, None]:
    """Run a worker: (kind, value) as its lines come, see `worker`. It ends with the loop over these lines.

    A worker that dies gives ("failed", [recipe, why]) for each recipe of which it had not told the end.
    """
    left = [recipe.name for recipe in recipes]
    given = [recipe.as_dict() for recipe in recipes]
    with contextlib.closing(lines_of("edgeflock_compression.worker", order, recipes=given)) as lines:
        for kind, said in lines:
            if kind == "ended":
                for name in left:
                    yield "failed", [name, said]
                return
            if kind in ("variant", "failed"):
                left.remove(said["name"] if kind == "variant" else said[0])
            yield kind, said
            if kind == "bad_input":
                return


def lines_of(module: str, order: Order, **more: Any) -> Generator[tuple[str, Any], None, None]:
    """Run a module as a worker: (kind, value) as its lines come, at last ("ended", how its process ended).

    While none comes ("quiet", None), so that a caller can give up. It ends with the loop over these lines.

    Args:
        module: reads one JSON object from standard input and writes JSON lines, as `worker` does.
        order: what it is to do.
        more: goes into that object beside the order.
    """
    parts = {name: str(part) if isinstance(part, Path) else part for name, part in asdict(order).items()}
    with worker(module, json.dumps({"order": parts, **more}).encode()) as process:
        for line in _lines(process.stdout.fileno()):
            ((kind, said),) = json.loads(line or b'{"quiet": null}').items()
            yield kind, said
        code = process.wait()
        yield "ended", f"its process ended with code {code}: {_last_line(process.stderr)}"


def _lines(pipe: int) -> Iterator[bytes]:
    """Whole lines as they come, and an empty one after each stretch of silence."""
    rest = b""
    while True:
        if not select.select([pipe], [], [], _QUIET_S)[0]:
            yield b""
            continue
        read = os.read(pipe, 1 << 16)
        if not read:
            return
        *lines, rest = (rest + read).split(b"\n")
        yield from lines


def _last_line(stderr: IO[bytes]) -> str:
    stderr.seek(max(0, stderr.seek(0, os.SEEK_END) - _TAIL_BYTES))
    lines = [line for line in stderr.read().decode(errors="replace").splitlines() if line.strip()]
    return lines[-1].strip() if lines else "it said nothing"


def judged_together(variants: Sequence[Variant], out: Path) -> list[Variant]:
    """The same with certificates adjusted for how many ship together (Holm), in their records too.

    They also say how many files were ever measured into this folder on the same test items, these among them: whoever
    tries ten recipes and ships one has looked at ten.
    """
    looked_at = _looked_at(variants, out)
    certificates = holm([variant.certificate for variant in variants if variant.certificate is not None])
    judged = []
    for variant, adjusted in zip(variants, certificates, strict=True):
        seen = max(adjusted.candidates_seen, looked_at)
        certificate = adjusted.model_copy(update={"candidates_seen": seen})
        together = variant.model_copy(update={"certificate": certificate})
        if together != variant:
            write_record(out / variant.name, together)
        judged.append(together)
    return judged


def _looked_at(variants: Sequence[Variant], out: Path) -> int:
    """Add these to the folder's list of files that were measured, and count those of the same data."""
    if not variants:
        return 0
    path = out / MEASURED_FILE
    known = path.read_text().split("\n") if path.is_file() else []
    lines = list(dict.fromkeys([*filter(None, known), *(f"{one.data_sha256} {one.sha256}" for one in variants)]))
    write_bytes(path, "".join(f"{line}\n" for line in lines).encode())
    return sum(line.startswith(variants[0].data_sha256) for line in lines)
