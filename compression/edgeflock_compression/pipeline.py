"""`compress`: a trained model and its data go in, measured variants with their provenance come out.

from pathlib import Path
from edgeflock_compression.pipeline import compress

for variant in compress(Path("lenet.keras"), Path("data.npz"), ["dynamic_wi8"], Path("variants")):
    print(variant.name, variant.raw_bytes, variant.accuracy)
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from numpy.typing import NDArray

from edgeflock_compression.data import (
    LabelledData,
    check_labels,
    evaluation_slice,
    fit,
    golden_inputs,
    load_data,
    task_of,
)
from edgeflock_compression.passes.table import PASSES
from edgeflock_compression.recipe import Recipe, load_recipes
from edgeflock_compression.source import Parent, open_parent
from edgeflock_compression.variant import (
    RECORD_FILE,
    Variant,
    outputs_over,
    versions,
    write_bytes,
    write_model,
    write_record,
)
from edgeflock_compression.work import Work
from edgeflock_deploy.bundle import Task, encode_blob
from edgeflock_deploy.cases import Evaluation, Golden, write_evaluation, write_golden
from edgeflock_deploy.errors import BadInput, EdgeflockError
from edgeflock_deploy.peak_memory import peak_rss_bytes
from edgeflock_deploy.scoring import agreement, answers, score

EVALUATION_FILE = "evaluation.npz"
GOLDEN_INPUTS_FILE = "golden_inputs.npz"

OnProgress = Callable[["Progress"], None]


class Progress(NamedTuple):
    """What is being done now: step `done` + 1 of `total`, in words."""

    done: int
    total: int
    what: str


class RecipesFailed(EdgeflockError):
    """Some recipes gave no variant; the others did.

    Args:
        variants: what came out.
        failures: recipe -> why it gave none.
    """

    def __init__(self, variants: list[Variant], failures: Mapping[str, str]) -> None:
        super().__init__("; ".join(f"recipe '{name}': {why}" for name, why in failures.items()))
        self.variants, self.failures = variants, failures


@dataclass(frozen=True)
class _Bench:
    """What every recipe of one call shares."""

    parent: Parent
    data: LabelledData
    saved_model: Path
    parent_answers: NDArray[Any]
    task: Task
    out: Path
    seed: int


def compress(
    model: Path,
    data: Path,
    recipes: Sequence[str],
    out: Path,
    seed: int = 0,
    on_progress: OnProgress = lambda _: None,
) -> list[Variant]:
    """Make one variant per recipe.

    Writes `out/NAME/model.tflite` and `out/NAME/variant.json` for each, and beside them `evaluation.npz` (labelled
    items for the boards) and `golden_inputs.npz`, so that `out` is all that publishing needs. The same model, data,
    recipe, seed and versions give the same bytes.

    Args:
        model: a `.keras` file or a SavedModel folder.
        data: an `.npz` with x_train, y_train, x_test, y_test.
        recipes: built-in names or TOML files; empty for all that are built in.
        out: folder to write to; made if it does not exist.
        seed: for the choice of calibration, evaluation and golden items.
        on_progress: is told what happens now.

    Raises:
        BadInput: the model, the data or a recipe cannot be used; nothing was written.
        RecipesFailed: after all recipes were tried, if some gave no variant.
    """
    chosen = load_recipes(recipes)  # what is cheap to check comes before TensorFlow is imported
    loaded = load_data(data)
    total = len(chosen) + 1
    on_progress(Progress(0, total, f"opening {model.name}"))
    parent = open_parent(model)
    fitted = fit(loaded, parent.item_shape, parent.dtype)
    outputs = parent.predict(fitted.x_test)
    check_labels(fitted, outputs)
    task = task_of(fitted, _write_cases(out, fitted, seed))
    variants: list[Variant] = []
    failures: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="edgeflock-") as scratch:
        saved_model = Path(scratch) / "parent"
        _export(parent, saved_model, fitted.x_test.shape[1:], model)
        bench = _Bench(parent, fitted, saved_model, answers(task.kind, outputs), task, out, seed)
        for done, recipe in enumerate(chosen, start=1):
            on_progress(Progress(done, total, recipe.name))
            try:
                variants.append(_make(bench, recipe))
            except Exception as error:  # the converter raises errors of many kinds; one recipe must not end the others
                failures[recipe.name] = " ".join(str(error).split())[:300] or type(error).__name__
    if failures:
        raise RecipesFailed(variants, failures)
    return variants


def _make(bench: _Bench, recipe: Recipe) -> Variant:
    folder = bench.out / recipe.name
    (folder / RECORD_FILE).unlink(missing_ok=True)  # should this fail, an earlier variant must not pass for its result
    work = Work(bench.saved_model, bench.data, bench.seed)
    for step in recipe.steps:
        work = PASSES[step.use].run(work, step.settings)
    if work.tflite is None:
        raise RuntimeError("no pass converted the model")
    path = write_model(folder, work.tflite)
    memory = peak_rss_bytes(path)  # in a process of its own, so that a file that crashes the runtime is found out there
    if not memory.runs:
        raise RuntimeError(f"the runtime does not run the result: {memory.reason}")
    task, blob = bench.task, encode_blob(work.tflite).blob
    given = answers(task.kind, outputs_over(path, bench.data.x_test))
    variant = Variant(
        name=recipe.name,
        recipe=recipe.as_dict(),
        parent_sha256=bench.parent.sha256,
        data_sha256=bench.data.sha256,
        seed=bench.seed,
        versions=versions(),
        sha256=blob.sha256,
        raw_bytes=blob.bytes,
        wire_bytes=blob.encoding.bytes,
        ram_bytes=memory.peak_rss_bytes,
        task=task,
        metric=task.metric,
        accuracy=score(task.kind, given, bench.data.y_test),
        agreement=agreement(task.kind, given, bench.parent_answers, task.agreement_atol),
        n_items=len(given),
        skipped=work.skipped,
    )
    write_record(folder, variant)
    return variant


def _write_cases(out: Path, data: LabelledData, seed: int) -> Evaluation | None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / EVALUATION_FILE).unlink(missing_ok=True)
        evaluation = evaluation_slice(data, seed)
        if evaluation is not None:
            write_bytes(out / EVALUATION_FILE, write_evaluation(evaluation))
        write_bytes(out / GOLDEN_INPUTS_FILE, write_golden(Golden((golden_inputs(data, seed),), ())))
    except OSError as error:
        raise BadInput(
            str(out), f"cannot be written: {error.strerror}", "give a folder that you may write to"
        ) from None
    return evaluation


def _export(parent: Parent, folder: Path, item_shape: tuple[int, ...], model: Path) -> None:
    try:
        parent.export(folder, item_shape)
    except Exception as error:  # tracing runs the model's own code
        why = " ".join(str(error).split())[:200]
        raise BadInput(str(model), f"cannot be exported with a batch of 1: {why}", "check its input shape") from None
