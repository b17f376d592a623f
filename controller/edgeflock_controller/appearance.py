"""What applications will see of a version: names, types, processing, state and batch, worked out at publish.

Decided here: that all variants of one version look the same from outside. They take the names of the model that they
were made of, so that a switch from float to int8 changes nothing for an application: quantized tensors are seen as the
real values that they stand for, unless the publisher wants the codes. It knows files and the runtime, no service.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgeflock_compression.parent.input_order import input_name
from edgeflock_controller.processing_file import Declared
from edgeflock_deploy import transforms
from edgeflock_deploy.errors import BadInput
from edgeflock_deploy.operators import State
from edgeflock_deploy.processing import InputProcessing, OutputProcessing, Processing
from edgeflock_deploy.runtime import LoadedModel, TensorInfo
from edgeflock_deploy.tensors import HeldTensor, StatePair, TensorSpec

Array = NDArray[Any]

MAX_BATCH = 256
_NAMELESS = re.compile(r"(Stateful)?PartitionedCall(_\d+)?$")  # what a converter calls an output that has no name


class Appearance(NamedTuple):
    """What the publisher asks for.

    Args:
        declared: pre- and post-processing.
        raw_io: whether applications see the codes of quantized tensors.
        state: pairs (output, input), by the model's names, that carry a sequence's state.
        max_batch: how many items one request may bring, where the model allows it.
    """

    declared: Declared | None = None
    raw_io: bool = False
    state: tuple[tuple[str, str], ...] = ()
    max_batch: int = MAX_BATCH

    @property
    def processing(self) -> Processing:
        """The processing, which may be none."""
        return Processing() if self.declared is None else self.declared.processing


PLAIN = Appearance()


class Names(NamedTuple):
    """What a version calls the tensors, in the order of a file."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


class Seen(NamedTuple):
    """The part of a manifest that says what applications see."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    held_inputs: tuple[HeldTensor, ...]
    held_outputs: tuple[HeldTensor, ...]
    state: tuple[StatePair, ...]
    max_batch: int

    def in_order(self, own: Names, wanted: Names) -> Seen:
        """The same with the tensors in the version's order: a converter may reorder those of one file.

        Args:
            own: the names in the file's order.
            wanted: the version's; empty where the order is good as it is.
        """

        def sorted_by(specs: Sequence[TensorSpec], held: Sequence[str], names: Sequence[str]) -> tuple[TensorSpec, ...]:
            rank = {name: place for place, name in enumerate(names)}
            return tuple(sorted(specs, key=lambda spec: rank.get(held[spec.of or 0], len(rank))))

        inputs = sorted_by(self.inputs, own.inputs, wanted.inputs)
        return self._replace(inputs=inputs, outputs=sorted_by(self.outputs, own.outputs, wanted.outputs))


def names_in(model: LoadedModel) -> Names:
    """The names in a file: its signature's, else the tensors' own without what the converter added."""
    signature = model.signature_names()
    if signature is not None:
        return Names(*signature)
    outputs = [info.name.split(":")[0] for info in model.outputs]
    plain = [f"output_{place}" if _NAMELESS.match(name) else name for place, name in enumerate(outputs)]
    return Names(_distinct([input_name(info) for info in model.inputs]), _distinct(plain))


def _distinct(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(name if names.count(name) == 1 else f"{name}_{place}" for place, name in enumerate(names))


def state_pairs(model: LoadedModel, names: Names, asked: Sequence[tuple[str, str]]) -> tuple[StatePair, ...]:
    """The pairs that were asked for; else outputs that have the name and the shape of an input.

    Raises:
        BadInput: a name that the model does not have, or a pair of different shapes.
    """
    if not asked:
        asked = [
            (name, name)
            for place, name in enumerate(names.outputs)
            if name in names.inputs and model.inputs[names.inputs.index(name)].shape == model.outputs[place].shape
        ]
        if len(asked) in (len(names.inputs), len(names.outputs)):
            return ()  # nothing would be left for an application
    pairs = []
    for output, into in asked:
        place = _place(names.outputs, output, "--state", "output")
        fed = _place(names.inputs, into, "--state", "input")
        if int(np.prod(model.outputs[place].shape)) != int(np.prod(model.inputs[fed].shape)):
            shapes = f"{model.outputs[place].shape} and {model.inputs[fed].shape}"
            raise BadInput(f"--state {output}={into}", f"their shapes differ: {shapes}", "pair tensors of one shape")
        pairs.append(StatePair(output=place, input=fed))
    if len({pair.input for pair in pairs}) < len(pairs):
        raise BadInput("--state", "feeds one input twice", "pair each input once")
    return tuple(pairs)


def input_of(processing: Processing, name: str) -> InputProcessing:
    """What is declared for an input of the model; nothing is done to one that is not named."""
    return next((one for one in processing.inputs if name == (one.of or one.name)), InputProcessing(name=name))


def check_names(processing: Processing, names: Names) -> None:
    """Hold the names in a processing file against the model's.

    Raises:
        BadInput: it speaks of a tensor that the model does not have, or twice of one.
    """
    for one in processing.inputs:
        _place(names.inputs, one.of or one.name, "processing", "input")
    of = [one.of or one.name for one in processing.inputs]
    if len(set(of)) < len(of):
        raise BadInput("processing", "speaks of one input twice", "give each input one table")
    for out in processing.outputs:
        _place(names.outputs, out.of or out.name, "processing", "output")


def seen(
    model: LoadedModel,
    names: Names,
    how: Appearance,
    state: State,
    case: tuple[Sequence[Array], Sequence[Array]],
) -> Seen:
    """What applications see of one file.

    Args:
        model: the file, loaded.
        names: what the version calls its tensors.
        how: what the publisher asked for.
        state: what the file keeps inside.
        case: one item that was run: what the file's inputs and outputs held, with the batch.

    Raises:
        BadInput: the processing does not fit the model.
    """
    check_names(how.processing, names)
    pairs = state_pairs(model, names, how.state)
    fed, left = {pair.input for pair in pairs}, {pair.output for pair in pairs}
    inputs = [
        _input(model.inputs[place], place, input_of(how.processing, name), how, held.shape)
        for place, (name, held) in enumerate(zip(names.inputs, case[0], strict=True))
        if place not in fed
    ]
    called = [spec.name for spec in inputs]
    if twice := [name for name in called if called.count(name) > 1]:
        raise BadInput("processing", f"two inputs are called '{twice[0]}'", "give each a name of its own")
    outputs = how.processing.outputs or [
        OutputProcessing(name=name) for place, name in enumerate(names.outputs) if place not in left
    ]
    specs = [_output(model, names, one, how, case[1]) for one in outputs]
    alone = bool(pairs) or state is State.RESOURCES or any(spec.shape[:1] != (1,) for spec in (*inputs, *specs))
    most = 1 if alone else how.max_batch
    return Seen(
        tuple(_batched(spec, most) for spec in inputs),
        tuple(_batched(spec, most) for spec in specs),
        tuple(map(_held, model.inputs)),
        tuple(map(_held, model.outputs)),
        pairs,
        most,
    )


def _input(
    info: TensorInfo, place: int, declared: InputProcessing, how: Appearance, held: tuple[int, ...]
) -> TensorSpec:
    real = "float32" if info.scale and not how.raw_io else info.dtype
    inner = declared.shape if declared.shape is not None else held[1:]
    shape = (*held[:1], *inner)
    limit = None if declared.limit is None else (*held[:1], *declared.limit)
    steps = declared.steps
    if not steps and shape != held and not _within(info, shape, limit):
        wrong = f"input '{declared.name}' is declared as {list(inner)}, the model takes {list(held[1:])}"
        raise BadInput("processing", wrong, "declare the steps that lead there, or leave the shape out")
    dtype = declared.dtype or real
    return TensorSpec(name=declared.name, dtype=dtype, shape=shape, limit=limit, of=place, steps=steps)


def _within(info: TensorInfo, shape: tuple[int, ...], limit: tuple[int, ...] | None) -> bool:
    """Whether a shape with open sizes leaves open only what the file does."""
    return info.opens_to(tuple(most if size == -1 else size for size, most in zip(shape, limit or shape, strict=True)))


def _output(
    model: LoadedModel, names: Names, one: OutputProcessing, how: Appearance, outputs: Sequence[Array]
) -> TensorSpec:
    place = names.outputs.index(one.of or one.name)
    info, array = model.outputs[place], outputs[place]
    labels = (how.declared.labels if how.declared is not None else None) or ()
    if not one.steps:
        dtype = "float32" if info.scale and not how.raw_io else info.dtype
        signature = info.signature
        shape = tuple(
            -1 if axis and signature[axis : axis + 1] == (-1,) else size for axis, size in enumerate(array.shape)
        )
        return TensorSpec(name=one.name, dtype=dtype, shape=shape, of=place)
    real = info.decode(array)
    whole = bool(real.ndim) and real.shape[0] == 1
    try:
        steps = [step.model_dump(mode="json") for step in one.steps]
        item = transforms.apply(steps, real[0] if whole else real, labels)
    except (ValueError, IndexError) as error:
        raise BadInput("processing", f"output '{one.name}': {error}", "choose steps that fit the model") from None
    if item.dtype == object and real.shape and len(labels) < real.shape[-1]:
        wrong = f"{len(labels)} labels for an output of {real.shape[-1]} values"
        raise BadInput(f"output '{one.name}'", wrong, "give a label for each")
    shape = (1, *item.shape) if whole else item.shape
    dtype = "text" if item.dtype == object else item.dtype.name
    return TensorSpec(name=one.name, dtype=dtype, shape=shape, of=place, steps=one.steps)


def prepared(items: Array, declared: InputProcessing) -> Array:
    """Items as applications send them, (n, ...), after the steps of one input.

    Raises:
        BadInput: a step cannot take them.
    """
    if not declared.steps:
        return items
    steps = [step.model_dump(mode="json") for step in declared.steps]
    try:
        return np.stack([transforms.apply(steps, item) for item in items])
    except ValueError as error:
        raise BadInput("processing", f"input '{declared.name}': {error}", "choose steps that fit the data") from None


def _batched(spec: TensorSpec, most: int) -> TensorSpec:
    if most == 1:
        return spec
    limit = spec.limit or spec.shape
    return spec.model_copy(update={"shape": (-1, *spec.shape[1:]), "limit": (most, *limit[1:])})


def _held(info: TensorInfo) -> HeldTensor:
    shape = info.signature or info.shape
    return HeldTensor(name=info.name, dtype=info.dtype, shape=shape, scale=info.scale, zero_point=info.zero_point)


def _place(names: Sequence[str], name: str, thing: str, kind: str) -> int:
    if name not in names:
        raise BadInput(thing, f"the model has no {kind} {name!r}", f"it has {', '.join(names)}")
    return list(names).index(name)
