"""Making the variants of recipes that begin with the same training passes: what one worker process does.

The process is fresh, its thread count is pinned and its operators are deterministic: the same model, data, recipes,
seed, threads and versions give the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from numpy.typing import NDArray

from edgeflock_compression.chain import run_passes
from edgeflock_compression.parent.data import FittedData, check_labels, fit, load_data
from edgeflock_compression.parent.source import Parent, open_parent
from edgeflock_compression.parent.split import Split, evaluation_slice, golden_inputs, split, stratified, task_of
from edgeflock_compression.passes.pack import pack
from edgeflock_compression.passes.table import PASSES
from edgeflock_compression.proof.certificate import certify
from edgeflock_compression.proof.metrics import Metric, metric_named
from edgeflock_compression.recipe import Recipe
from edgeflock_compression.tf_import import deterministic
from edgeflock_compression.tflite.wire_estimate import wire_estimate
from edgeflock_compression.variant import (
    CONTAINER_FILE,
    MODEL_FILE,
    RECORD_FILE,
    Variant,
    outputs_over,
    read_record,
    versions,
    write_bytes,
    write_model,
    write_record,
)
from edgeflock_compression.work import Bench, Skipped, Work
from edgeflock_deploy.bundle import Task
from edgeflock_deploy.canonical import sha256_hex
from edgeflock_deploy.cases import Golden, write_evaluation, write_golden
from edgeflock_deploy.errors import BadInput
from edgeflock_deploy.peak_memory import peak_rss_bytes
from edgeflock_deploy.scoring import agreement, answers, score

EVALUATION_FILE = "evaluation.npz"
GOLDEN_INPUTS_FILE = "golden_inputs.npz"
CACHE_FOLDER = ".passes"

Tell = Callable[[str, float], None]


@dataclass(frozen=True)
class Order:
    """What one worker is to make.

    Args:
        model: the parent.
        data: DATA.npz.
        out: folder for the variants.
        seed: for everything random.
        threads: that TensorFlow computes with.
        metric: what the certificate speaks of, see `metrics`.
        margin: the loss that is certified against, in the metric's unit; None for none.
        candidates_seen: how many candidates the choice was made among.
        on: the items that variants are measured on; `validation` leaves x_test alone, as a search must.
        fit_items: train on so many of the items only; None for all.
        wire: whether bytes on the wire are those of the container or an estimate, which is quick.
        passes: folder of finished passes; None for `.passes` in `out`.
        made: folder in which the variants lie already, made by the same recipes from the same model and data: they
            are not made again, only measured; one that does not lie there fails.
    """

    model: Path
    data: Path
    out: Path
    seed: int = 0
    threads: int = 2
    metric: str | None = None
    margin: float | None = None
    candidates_seen: int = 1
    on: Literal["test", "validation"] = "test"
    fit_items: int | None = None
    wire: Literal["exact", "estimate"] = "exact"
    passes: Path | None = None
    made: Path | None = None


@dataclass(frozen=True)
class _Room:
    """What every recipe of one order shares."""

    order: Order
    bench: Bench
    data: FittedData
    parent_outputs: NDArray[Any]
    task: Task
    metric: Metric


def make(
    order: Order, recipes: Sequence[Recipe], done: Callable[[Variant | tuple[str, str]], None], tell: Tell
) -> None:
    """Make one variant per recipe; they share their training passes.

    Writes `out/NAME/model.tflite` and `variant.json` for each, `evaluation.npz` and `golden_inputs.npz` beside them
    (of the items that are measured on).

    Args:
        order: what from and where to.
        recipes: whose passes before the last are the same.
        done: is given each variant as it comes out, or (recipe, why it gave none).
        tell: says how far it is: (what, share of it done).

    Raises:
        BadInput: the model or the data cannot be used; nothing was written.
    """
    metric = metric_named(order.metric) if order.metric else None
    loaded = load_data(order.data)
    deterministic(order.threads)
    parent = open_parent(order.model)
    data = fit(loaded, parent.inputs)
    parts = split(data, order.seed)
    if order.on == "validation":
        data = replace(data, x_test=parts.x_validation, y_test=parts.y_validation)
    outputs = parent.predict(data.x_test)[0]
    check_labels(data, outputs)
    task = _write_cases(order.out, data, order.seed)
    bench = Bench(parent, _fewer(parts, order), order.seed, tell)
    room = _Room(order, bench, data, outputs, task, metric or metric_named(task.metric))
    for recipe in recipes:  # should one fail, an earlier variant must not pass for its result
        (order.out / recipe.name / RECORD_FILE).unlink(missing_ok=True)
    if order.made is not None:
        for recipe in recipes:
            try:
                done(_measured_again(room, recipe, order.made / recipe.name))
            except Exception as error:  # as below
                done((recipe.name, _why(error)))
        return
    try:
        work = _prepared(room, recipes[0])
    except Exception as error:  # training and the model's own code raise errors of many kinds
        for recipe in recipes:
            done((recipe.name, _why(error)))
        return
    for recipe in recipes:
        try:
            tell(recipe.name, 0.0)
            done(_convert(room, recipe, work))
        except Exception as error:  # the converter too; one recipe must not end the others
            done((recipe.name, _why(error)))


def _prepared(room: _Room, recipe: Recipe) -> Work:
    """The work before the conversion."""
    parent, order = room.bench.parent, room.order
    work = Work(room.bench, parent.model).skipping(
        *(
            Skipped(layer=layer, reason=f"'{name}' of an earlier Keras was left out: it changed nothing")
            for layer, name in parent.dropped
        )
    )
    if recipe.trainings and parent.model is None:
        raise BadInput(
            f"recipe '{recipe.name}'", "has passes that need layers to work on", "give the model as a .keras file"
        )
    cache = order.passes or order.out / CACHE_FOLDER
    return run_passes(work, recipe.trainings, cache, identity_of(parent, room.data, order))


def identity_of(parent: Parent, data: FittedData, order: Order) -> dict[str, Any]:
    """What the result of a pass depends on besides the passes."""
    own: dict[str, Any] = {"seed": order.seed, "threads": order.threads, "versions": versions()}
    if order.fit_items is not None:
        own["fit_items"] = order.fit_items
    return {"parent": parent.sha256, "data": data.sha256, **own}


def _fewer(parts: Split, order: Order) -> Split:
    if order.fit_items is None:
        return parts
    chosen = stratified(parts.y_fit, order.fit_items, order.seed)
    return replace(parts, x_fit=tuple(x[chosen] for x in parts.x_fit), y_fit=parts.y_fit[chosen])


def _measured_again(room: _Room, recipe: Recipe, made: Path) -> Variant:
    """Measure the variant of this recipe that lies in a folder; raises OSError or ValueError where there is none."""
    order = room.order
    record, tflite = read_record(made), (made / MODEL_FILE).read_bytes()
    found = (record.recipe, record.data_sha256, record.parent_sha256, record.seed, record.threads, record.versions)
    wanted = (recipe.as_dict(), room.data.sha256, room.bench.parent.sha256, order.seed, order.threads, versions())
    if found != wanted or sha256_hex(tflite) != record.sha256:
        raise ValueError(f"{made} holds another variant")
    room = replace(room, order=replace(order, fit_items=record.fit_items))
    work = Work(room.bench, None, tflite=tflite, hashes=record.hashes, skipped=record.skipped, notes=record.passes)
    path = write_model(order.out / recipe.name, tflite)
    variant = _measured(room, recipe, work, path, record.ram_bytes)
    write_record(order.out / recipe.name, variant)
    return variant


def _convert(room: _Room, recipe: Recipe, work: Work) -> Variant:
    step = recipe.conversion
    work = PASSES[step.use].run(work, step.settings)
    if work.tflite is None:
        raise RuntimeError("no pass converted the model")
    folder = room.order.out / recipe.name
    path = write_model(folder, work.tflite)
    memory = peak_rss_bytes(path)  # in a process of its own, so that a file that crashes the runtime is found out there
    if not memory.runs:
        raise RuntimeError(f"the runtime does not run the result: {memory.reason}")
    books = work.codebooks.values()
    hashes = tuple((book.hashed, len(book.values) // 2) for book in books if book.hashed is not None)
    variant = _measured(room, recipe, replace(work, hashes=hashes), path, memory.peak_rss_bytes)
    write_record(folder, variant)
    return variant


def _measured(room: _Room, recipe: Recipe, work: Work, path: Path, ram_bytes: int | None) -> Variant:
    assert work.tflite is not None
    order, data, task = room.order, room.data, room.task
    names = [spec.name for spec in room.bench.parent.inputs]
    outputs = outputs_over(path, data.x_test, names)
    given, estimated = answers(task.kind, outputs), order.wire == "estimate"
    wire_bytes = wire_estimate(work.tflite) if estimated else _packed(path, pack(work, recipe.packing))
    return Variant(
        name=recipe.name,
        recipe=recipe.as_dict(),
        parent_sha256=room.bench.parent.sha256,
        data_sha256=data.sha256,
        seed=order.seed,
        threads=order.threads,
        versions=versions(),
        sha256=sha256_hex(work.tflite),
        raw_bytes=len(work.tflite),
        wire_bytes=wire_bytes,
        hashes=work.hashes,
        wire_estimated=estimated,
        fit_items=order.fit_items,
        measured_on=order.on,
        ram_bytes=ram_bytes,
        task=task,
        metric=task.metric,
        accuracy=score(task.kind, given, data.y_test),
        agreement=agreement(task.kind, given, answers(task.kind, room.parent_outputs), task.agreement_atol),
        n_items=len(given),
        skipped=work.skipped,
        inputs=tuple(names),
        passes={use: dict(numbers) for use, numbers in work.notes.items()},
        certificate=certify(
            room.parent_outputs,
            outputs,
            data.y_test,
            room.metric,
            order.margin,
            order.seed,
            order.candidates_seen,
            task.agreement_atol,
        ),
    )


def _packed(path: Path, work: Work) -> int:
    """Bytes on the wire; what travels is kept beside the model, for publishing."""
    assert work.packed is not None
    if work.packed.blob.encoding.codec == "sections":
        write_bytes(path.with_name(CONTAINER_FILE), work.packed.container)
    return len(work.packed.container)


def _write_cases(out: Path, data: FittedData, seed: int) -> Task:
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / EVALUATION_FILE).unlink(missing_ok=True)
        evaluation = evaluation_slice(data, seed)
        if evaluation is not None:
            write_bytes(out / EVALUATION_FILE, write_evaluation(evaluation))
        write_bytes(out / GOLDEN_INPUTS_FILE, write_golden(Golden(golden_inputs(data, seed), ())))
    except OSError as error:
        raise BadInput(
            str(out), f"cannot be written: {error.strerror}", "give a folder that you may write to"
        ) from None
    return task_of(data, evaluation)


def _why(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
