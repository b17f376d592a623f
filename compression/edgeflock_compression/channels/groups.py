"""Which channels of a model can be removed, and what goes with each: the dependency groups of structured pruning.

Decided here: how the graph is walked. Every place along the last axis of every tensor carries the number of a channel
(`ties`); rules per kind of layer (`rules`) make, carry and tie them. What is left after the walk are
classes of channels that must live or die together, wherever they occur (Fang et al. 2023, DepGraph, arXiv:2301.12900,
states the same dependencies between layers). This file knows no scores and changes no model.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeflock_compression.channels.rules import LAYER_RULES, OPERATION_RULES, Call, Rule, Site, Whole
from edgeflock_compression.channels.ties import Labels, Ties
from edgeflock_compression.tf_import import keras
from edgeflock_compression.work import Skipped

Keep = NDArray[np.bool_]


@dataclass(frozen=True)
class Group:
    """Channels that are made by the same layers, to be chosen among.

    Args:
        layers: the layers that make them; with several, each channel is made by all of them and goes in all.
        channels: their labels, in the order of the first layer.
    """

    layers: tuple[str, ...]
    channels: Labels


@dataclass(frozen=True)
class Channels:
    """What the walk found out. Labels are final: two places that carry one channel have the same label.

    Args:
        sites: by layer name, the layers whose weights go with channels.
        groups: all channels that may be removed.
        count: how many labels there are; a `keep` array has one bool for each.
        norm_of: by name of a layer that makes channels, the batch norm that directly follows it.
        skipped: layers whose channels must stay, and why.
    """

    sites: Mapping[str, Site]
    groups: tuple[Group, ...]
    count: int
    norm_of: Mapping[str, str]
    skipped: tuple[Skipped, ...]

    def all_kept(self) -> Keep:
        """A `keep` array that removes nothing."""
        return np.ones(self.count, np.bool_)

    def multiply_adds(self, keep: Keep, now: Mapping[str, int]) -> float:
        """Multiply-adds after a cut, counted without making it: a layer's are proportional to its kernels' elements.

        Args:
            keep: by label, whether the channel stays.
            now: by layer name, before the cut (`macs.multiply_adds`).
        """
        return sum(macs * (_share(self.sites[name], keep) if name in self.sites else 1.0) for name, macs in now.items())

    def made_by_layer(self, keep: Keep) -> dict[str, int]:
        """How many channels each layer that makes some has after a cut."""
        return {name: int(keep[site.made].sum()) for name, site in self.sites.items() if site.kernel is not None}


def find_channels(model: Any) -> Channels:
    """Walk the graph of a flat functional model (see `graph.flat`)."""
    walk = _Walk(model)
    walk.run()
    roots, reasons = walk.ties.roots(), walk.ties.reasons()
    for site in walk.sites.values():
        site.axes = {path: {a: roots[labels] for a, labels in axes.items()} for path, axes in site.axes.items()}
        site.sizes = {setting: roots[labels] for setting, labels in site.sizes.items()}
    groups = _groups(walk.sites.values(), reasons)
    skipped = (*walk.skipped, *_skipped(walk.sites.values(), reasons))
    return Channels(walk.sites, groups, len(roots), walk.norm_of, skipped)


class _Walk:
    """One pass over the graph, inputs first."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._by_tensor: dict[int, Labels] = {}
        self._nodes = [node for _, nodes in sorted(model._nodes_by_depth.items(), reverse=True) for node in nodes]
        self._uses = Counter(id(node.operation) for node in self._nodes)
        self.ties = Ties()
        self.sites: dict[str, Site] = {}
        self.norm_of: dict[str, str] = {}
        self.skipped: list[Skipped] = []

    def run(self) -> None:
        for node in self._nodes:
            if node.is_input:
                self._new_and_whole(node, "it goes with the model's input")
            else:
                self._step(node)
        for tensor in self._model.outputs:
            self.ties.leave_whole(self._by_tensor[id(tensor)], "its channels are an output of the model")

    def _step(self, node: Any) -> None:
        layer, tensors = node.operation, node.input_tensors
        given = [self._by_tensor[id(tensor)] for tensor in tensors]
        site = Site(layer)
        try:
            made = self._rule(layer, tensors)(self._call(node, site, given))
        except Whole as reason:
            self._stop(node, given, str(reason))
            return
        if site.axes or site.sizes:
            self.sites[layer.name] = site
        if made is None:
            self._new_and_whole(node, site.whole or "")
            self.skipped.append(Skipped(layer=layer.name, reason=site.whole or ""))
            return
        self._by_tensor[id(node.outputs[0])] = made
        if type(layer).__name__ == "BatchNormalization":
            self.norm_of[tensors[0]._keras_history.operation.name] = layer.name

    def _rule(self, layer: Any, tensors: Sequence[Any]) -> Rule:
        is_layer = isinstance(layer, keras().layers.Layer)
        kind = type(layer).__name__
        rule = (LAYER_RULES if is_layer else OPERATION_RULES).get(kind)
        if rule is None or not type(layer).__module__.startswith("keras."):
            raise Whole(f"{kind} is left whole")
        if is_layer and (layer.weights or kind == "Reshape") and self._uses[id(layer)] > 1:
            raise Whole("it is called more than once")
        if getattr(layer, "data_format", None) == "channels_first":
            raise Whole("its channels are not the last axis")
        if any(len(tensor.shape) < 2 or tensor.shape[-1] is None for tensor in tensors):
            raise Whole("the last axis of its input is open")
        return rule

    def _call(self, node: Any, site: Site, given: Sequence[Labels]) -> Call:
        module = keras()
        arguments = module.tree.flatten((node.arguments.args, node.arguments.kwargs))
        constants = [value for value in arguments if value is not None and not isinstance(value, module.KerasTensor)]
        shapes = [tuple(tensor.shape) for tensor in node.input_tensors]
        return Call(self.ties, site, node.operation, given, shapes, tuple(node.outputs[0].shape), constants)

    def _stop(self, node: Any, given: Sequence[Labels], reason: str) -> None:
        name = node.operation.name
        for labels in given:
            self.ties.leave_whole(labels, f"'{name}' needs them all ({reason})")
        self._new_and_whole(node, f"it goes with '{name}' ({reason})")
        if getattr(node.operation, "weights", ()) and all(part.layer != name for part in self.skipped):
            self.skipped.append(Skipped(layer=name, reason=reason))

    def _new_and_whole(self, node: Any, reason: str) -> None:
        for tensor in node.outputs:
            size = tensor.shape[-1] if len(tensor.shape) > 1 else None
            self._by_tensor[id(tensor)] = self.ties.fresh(size or 0)
            self.ties.leave_whole(self._by_tensor[id(tensor)], reason)


def _groups(sites: Any, reasons: Mapping[int, str]) -> tuple[Group, ...]:
    makers: dict[int, list[str]] = defaultdict(list)
    for site in sites:
        if site.kernel is not None:
            for label in dict.fromkeys(site.made.tolist()):
                makers[label].append(site.layer.name)
    members: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for label, layers in makers.items():
        if label not in reasons:
            members[tuple(layers)].append(label)
    return tuple(Group(layers, np.array(labels, np.int64)) for layers, labels in members.items())


def _skipped(sites: Any, reasons: Mapping[int, str]) -> list[Skipped]:
    found = []
    for site in sites:
        if site.kernel is None:
            continue
        why = Counter(reasons[label] for label in site.made.tolist() if label in reasons)
        for reason, count in why.items():
            part = "" if count == len(site.made) else f"{count} of {len(site.made)} channels: "
            found.append(Skipped(layer=site.layer.name, reason=part + (site.whole or reason)))
    return found


def _share(site: Site, keep: Keep) -> float:
    """Share of the elements of a layer's kernels that a cut leaves."""
    before = after = 0.0
    for variable in site.layer.weights:
        if len(variable.shape) > 1:
            size = float(np.prod(variable.shape))
            before += size
            for labels in site.axes.get(variable.path, {}).values():
                size *= float(keep[labels].mean())
            after += size
    return after / before if before else 1.0
