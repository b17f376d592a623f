"""Fine-tuning: the one training loop of all passes.

Pure in what it changes: the model that comes in stays as it is, parameters live outside the layers, and the result is
new arrays. The same model, data, settings and seed give the same result on the same number of threads.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field

from edgeflock_compression.graph.flat import with_weights
from edgeflock_compression.graph.logits import logit_model
from edgeflock_compression.tf_import import keras, tensorflow
from edgeflock_compression.training.loss import teacher_logits, training_loss
from edgeflock_compression.training.parametrization import Free, Parametrization
from edgeflock_compression.work import Bench
from edgeflock_deploy.messages.values import Frozen

Array = NDArray[Any]
Variables = Mapping[str, Sequence[Any]]
_BATCH_ITEMS, _FEWEST_ITEMS, _STEPS = 128, 16, 30
_CALLS = 50  # how often a training comes up for air: progress is told, schedules move


class FineTune(Frozen):
    """Settings that every pass with fine-tuning has. Adam (Kingma, Ba 2015) with a cosine decay to 0."""

    model_config = ConfigDict(extra="forbid")

    epochs: float = Field(2.0, ge=0)  # passes over the training items; 0: no fine-tuning
    learning_rate: float = Field(1e-3, gt=0)
    batch_items: int | None = Field(None, ge=1)  # None: 128, or fewer where an epoch would have under 30 steps
    alpha: float = Field(0.0, ge=0, le=1)  # share of the parent's answers in the loss (distillation)
    temperature: float = Field(4.0, gt=0)  # how far the parent's answers are softened


@dataclass(frozen=True)
class Trained:
    """What came out.

    Args:
        model: a new Keras model with the trained weights.
        parameters: by weight path, the parameters of the weights that had a parametrization.
    """

    model: Any
    parameters: Mapping[str, tuple[Array, ...]]


def fine_tune(
    model: Any,
    bench: Bench,
    settings: FineTune,
    rules: Mapping[str, Parametrization],
    what: str = "fine-tuning",
    schedule: Callable[[float, Variables], None] = lambda _share, _variables: None,
) -> Trained:
    """Train a model on the training items, under rules for some of its weights.

    Args:
        model: flat functional model (see `graph.flat`).
        bench: data, seed, the parent as teacher, where progress is told.
        settings: how long and how fast; `alpha` > 0 mixes the parent's answers into the loss.
        rules: by weight path, how the weight is made from its parameters; weights without one are free.
        what: what is being done, for the progress.
        schedule: called some fifty times, first before the first step and last after the last, with the share done
            (0..1) and the variables by weight path; it may assign to them.

    Raises:
        ArithmeticError: the loss is no longer finite.
    """
    tf, module = tensorflow(), keras()
    module.utils.set_random_seed(bench.seed)
    source, model = model, logit_model(model) if bench.data.kind == "classification" else model
    made_by: list[Parametrization] = [rules.get(variable.path, Free()) for variable in model.trainable_variables]
    unknown = set(rules) - {variable.path for variable in model.trainable_variables}
    if unknown:
        raise ValueError(f"no trainable weights at {sorted(unknown)}")
    variables = [
        [
            module.Variable(np.asarray(start, np.float32), name=f"p{n}")
            for n, start in enumerate(rule.start(np.asarray(v)))
        ]
        for rule, v in zip(made_by, model.trainable_variables, strict=True)
    ]
    by_path = {v.path: group for v, group in zip(model.trainable_variables, variables, strict=True)}
    others = [tf.Variable(np.asarray(v)) for v in model.non_trainable_variables]
    flat_variables = [variable for group in variables for variable in group]

    items = len(bench.data.y_fit)
    batch = min(settings.batch_items or max(_FEWEST_ITEMS, min(_BATCH_ITEMS, items // _STEPS)), items)
    steps = max(1, round(settings.epochs * items / batch)) if settings.epochs else 0
    optimizer = module.optimizers.Adam(module.optimizers.schedules.CosineDecay(settings.learning_rate, max(steps, 1)))
    optimizer.build(flat_variables)
    teacher = _teacher_logits(bench, settings)
    x, y = [tf.constant(part) for part in bench.data.x_fit], tf.constant(bench.data.y_fit)
    kind = bench.data.kind
    side_losses = _side_losses(bench, len(model.outputs))

    def weights() -> list[Any]:
        return [
            rule.weight([tf.convert_to_tensor(variable) for variable in group])
            for rule, group in zip(made_by, variables, strict=True)
        ]

    def step(rows: Any) -> Any:
        inputs = [tf.gather(part, rows) for part in x]
        with tf.GradientTape() as tape:
            outputs, state, extra = model.stateless_call(
                weights(),
                others,
                inputs[0] if len(inputs) == 1 else module.tree.pack_sequence_as(model.input, inputs),
                training=True,
                return_losses=True,
            )
            first = module.tree.flatten(outputs)[0]
            soft = None if teacher is None else tf.gather(teacher, rows)
            loss = training_loss(kind, first, tf.gather(y, rows), soft, settings.temperature, settings.alpha)
            loss = tf.add_n([loss, *extra, *side_losses(outputs, rows)])
        optimizer.apply(tape.gradient(loss, [v.value for v in flat_variables]), flat_variables)
        for old, new in zip(others, state, strict=True):
            old.assign(new)
        return loss

    @tf.function(input_signature=[tf.TensorSpec((None, batch), tf.int64)])  # type: ignore[untyped-decorator]  # TensorFlow has no types
    def run(rows: Any) -> Any:
        total = tf.constant(0.0)
        for at in tf.range(tf.shape(rows)[0]):
            total += step(rows[at])
        return total / tf.cast(tf.shape(rows)[0], "float32")

    rng = np.random.default_rng(bench.seed)
    order = _batches(rng, items, batch, steps)
    schedule(0.0, by_path)
    for done, rows in _in_calls(order):
        mean = float(run(tf.constant(rows)))
        if not np.isfinite(mean):
            raise ArithmeticError(f"{what}: the loss is {mean}: lower learning_rate (now {settings.learning_rate:g})")
        share = done / max(len(order), 1)
        schedule(share, by_path)
        bench.tell(what, share)
    # A weight times a mask may be -0.0, which is another bit pattern than 0.0 and would cost bytes on the wire.
    trained = {v.path: np.asarray(w) + 0.0 for v, w in zip(model.trainable_variables, weights(), strict=True)}
    trained |= {v.path: np.asarray(w) for v, w in zip(model.non_trainable_variables, others, strict=True)}
    parameters = {path: tuple(np.asarray(v) for v in by_path[path]) for path in rules}
    return Trained(with_weights(source, trained), parameters)


def _teacher_logits(bench: Bench, settings: FineTune) -> Any | None:
    if settings.alpha == 0:
        return None
    tf = tensorflow()
    answers = tf.constant(bench.parent.predict(bench.data.x_fit)[0])
    return teacher_logits(answers, bench.parent.gives_distribution) if bench.data.kind == "classification" else answers


def _side_losses(bench: Bench, outputs: int) -> Callable[[Any, Any], list[Any]]:
    """Labels speak of the first output; the others are held to what the parent says (squared error over variance)."""
    if outputs == 1:
        return lambda _outputs, _rows: []
    tf, module = tensorflow(), keras()
    wanted = [tf.constant(answer) for answer in bench.parent.predict(bench.data.x_fit)[1:]]
    spread = [float(np.var(np.asarray(answer))) or 1.0 for answer in wanted]

    def losses(given: Any, rows: Any) -> list[Any]:
        return [
            tf.reduce_mean(tf.math.squared_difference(out, tf.gather(answer, rows))) / scale
            for out, answer, scale in zip(module.tree.flatten(given)[1:], wanted, spread, strict=True)
        ]

    return losses


def _batches(rng: np.random.Generator, items: int, batch: int, steps: int) -> NDArray[np.int64]:
    """Rows of each step, (steps, batch): every item once per epoch, in an order drawn anew."""
    per_epoch = items // batch
    epochs = -(-steps // per_epoch) if steps else 0
    rows = [rng.permutation(items)[: per_epoch * batch].reshape(per_epoch, batch) for _ in range(epochs)]
    return np.concatenate(rows)[:steps] if rows else np.empty((0, batch), np.int64)


def _in_calls(order: NDArray[np.int64]) -> list[tuple[int, NDArray[np.int64]]]:
    """The steps cut into some fifty calls: (steps done after it, its rows)."""
    if not len(order):
        return []
    edges = np.linspace(0, len(order), min(_CALLS, len(order)) + 1).round().astype(int)
    return [(int(end), order[start:end]) for start, end in itertools.pairwise(edges)]
