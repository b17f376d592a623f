"""Structured pruning: units, channels and whole residual blocks are removed, so that the model is a smaller dense one.

Decided here: the course. Residual blocks first, each time the one without which the loss on the validation items is
lowest; then, in `steps` rounds, the channels with the lowest scores of the whole model (with `taylor` and a goal of
speed: per multiply-add saved) until the round's share of the goal is reached; fine-tuning after every round. Li et al.
2017 (arXiv:1608.08710), Liu et al. 2017 (arXiv:1708.06519), Molchanov et al. 2017 (arXiv:1611.06440) and 2019
(arXiv:1906.10771). A `latency_ratio` is measured and so not reproducible: the notes say which `mac_ratio` it came to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from edgeflock_compression.channels.choice import fewest, keep_without, per_multiply_add, pieces
from edgeflock_compression.channels.cut import cut, cut_model
from edgeflock_compression.channels.groups import Channels, Group, Keep, find_channels
from edgeflock_compression.channels.residual_blocks import residual_blocks, without_block
from edgeflock_compression.channels.scores import Scores, l1_scores, norm_scores, taylor_scores
from edgeflock_compression.graph.logits import logit_model
from edgeflock_compression.graph.macs import multiply_adds
from edgeflock_compression.tf_import import keras, tensorflow
from edgeflock_compression.tflite.float_latency import Ratio, latency_ratio_to
from edgeflock_compression.training.fine_tuning import FineTune, fine_tune
from edgeflock_compression.training.loss import training_loss
from edgeflock_compression.training.parametrization import held, kept
from edgeflock_compression.work import Bench, Skipped, Work

Probe = Callable[[Any, Bench], AbstractContextManager[Ratio]]
_NAME = "prune_channels"
_BATCH = 256


class Settings(FineTune):
    """Settings of the pass: one goal for the channels, or `blocks`, or both. `epochs` are spread over the rounds."""

    ratio: float | None = Field(None, gt=0, lt=1)  # share of the removable channels to remove
    mac_ratio: float | None = Field(None, gt=0, lt=1)  # share of the multiply-adds to keep
    latency_ratio: float | None = Field(None, gt=0, lt=1)  # share of the float latency here to keep, measured
    blocks: int = Field(0, ge=0)  # residual blocks to remove
    criterion: Literal["l1", "bn", "taylor"] = "taylor"  # what a channel's score is (see `channels.scores`)
    round_to: int = Field(8, ge=1)  # a group keeps a multiple of this; smaller groups stay whole
    group_ratio: float = Field(0.9, gt=0, lt=1)  # largest share of one group's channels to remove
    steps: int = Field(1, ge=1)  # rounds of cutting and fine-tuning
    score_items: int = Field(1024, ge=1)  # training items behind a score of `taylor`

    @model_validator(mode="after")
    def _has_a_goal(self) -> Settings:
        goals = [goal for goal in (self.ratio, self.mac_ratio, self.latency_ratio) if goal is not None]
        if len(goals) > 1 or not (goals or self.blocks):
            raise ValueError("give one of ratio, mac_ratio, latency_ratio, or blocks")
        return self

    @property
    def cuts_channels(self) -> bool:
        """Whether a goal for the channels is set."""
        return (self.ratio, self.mac_ratio, self.latency_ratio) != (None, None, None)


def prune_channels(work: Work, settings: Settings, probe: Probe = latency_ratio_to) -> Work:
    """Remove residual blocks and channels, fine-tune, and note what was removed.

    Args:
        work: with a flat functional model.
        settings: how much goes and by which criterion.
        probe: what measures a latency; by default this machine's interpreter.
    """
    first = work.model
    rounds = min(1, settings.blocks) + (settings.steps if settings.cuts_channels else 0)
    tune = settings.model_copy(update={"epochs": settings.epochs / rounds})
    if settings.blocks:
        work = _tuned(_without_blocks(work, settings.blocks), tune)
    if settings.cuts_channels:
        work = _Rounds(work, first, settings, tune, probe).run(work)
    before, after = sum(multiply_adds(first).values()), sum(multiply_adds(work.model).values())
    layers = _made_by_layer(work.model)
    return work.noting(
        _NAME,
        multiply_adds_before=before,
        multiply_adds_after=after,
        mac_ratio=after / before if before else 1.0,
        channels={name: [count, layers.get(name, 0)] for name, count in _made_by_layer(first).items()},
    )


class _Rounds:
    """The rounds in which channels go."""

    def __init__(self, work: Work, first: Any, settings: Settings, tune: FineTune, probe: Probe) -> None:
        self._settings, self._tune, self._probe = settings, tune, probe
        self._first = first
        self._macs_first = sum(multiply_adds(first).values())
        self._macs_begun = sum(multiply_adds(work.model).values())
        channels = find_channels(work.model)
        groups, left = self._usable(channels, work.model)
        self._sizes = {group.layers: len(group.channels) for group in groups}
        self._skipped = (*channels.skipped, *left)

    def run(self, work: Work) -> Work:
        """All rounds.

        Returns:
            The work with a smaller model; what had to stay, and a goal that could not be reached, stand in `skipped`.
        """
        work = work.skipping(*self._skipped)
        with ExitStack() as stack:
            latency = None
            if self._settings.latency_ratio is not None:
                latency = stack.enter_context(self._probe(self._first, work.bench))
            for done in range(1, self._settings.steps + 1):
                work = _tuned(self._round(work, done / self._settings.steps, latency), self._tune)
            if latency is not None:
                work = work.noting(_NAME, latency_ratio=latency(work.model))
        return work

    def _round(self, work: Work, share: float, latency: Ratio | None) -> Work:
        """Cut until `share` of the way to the goal is gone."""
        channels = find_channels(work.model)
        scores = self._scores(work, channels)
        groups = [group for group in channels.groups if group.layers in self._sizes]
        if self._settings.criterion == "taylor" and self._settings.ratio is None:
            scores = per_multiply_add(scores, channels, groups, multiply_adds(work.model))
        ordered = pieces(groups, scores, self._settings.round_to, self._settings.group_ratio, self._sizes)
        reached = self._goal(work, channels, groups, share, latency)

        def keep(count: int) -> Keep:
            return keep_without(channels, ordered[:count])

        count = fewest(len(ordered) + 1, lambda n: n <= len(ordered) and reached(keep(n)))
        if count > len(ordered):
            count = len(ordered)
            if share == 1:
                reason = "all channels that may go are gone before the goal is reached (group_ratio, round_to)"
                work = work.skipping(Skipped(layer=work.model.name, reason=reason))
        return cut(work, channels, keep(count)) if count else work

    def _goal(
        self, work: Work, channels: Channels, groups: list[Group], share: float, latency: Ratio | None
    ) -> Callable[[Keep], bool]:
        settings = self._settings
        if settings.ratio is not None:
            stay = sum(self._sizes.values()) * (1 - settings.ratio * share)
            return lambda keep: sum(int(keep[group.channels].sum()) for group in groups) <= stay + 1e-9
        if settings.mac_ratio is not None:
            wanted = self._macs_first * settings.mac_ratio
            stay = self._macs_begun - (self._macs_begun - wanted) * share
            now = multiply_adds(work.model)
            return lambda keep: channels.multiply_adds(keep, now) <= stay * (1 + 1e-9)
        assert latency is not None
        assert settings.latency_ratio is not None
        wanted = 1 - (1 - settings.latency_ratio) * share
        work.bench.tell(f"{_NAME}: measuring latencies", share)
        return lambda keep: latency(cut_model(work.model, channels, keep)) <= wanted

    def _scores(self, work: Work, channels: Channels) -> Scores:
        if self._settings.criterion == "l1":
            return l1_scores(work.model, channels)
        if self._settings.criterion == "bn":
            return norm_scores(work.model, channels)
        return taylor_scores(work.model, channels, work.bench, self._settings.score_items)

    def _usable(self, channels: Channels, model: Any) -> tuple[list[Group], list[Skipped]]:
        """The groups that can lose channels, and why the others cannot."""
        usable, left = [], []
        scaled = ~np.isnan(norm_scores(model, channels))
        for group in channels.groups:
            reason = None
            if len(group.channels) <= self._settings.round_to:
                reason = f"has {len(group.channels)} channels to choose among, at most round_to"
            elif self._settings.criterion == "bn" and not scaled[group.channels].all():
                reason = "no batch norm scales its channels: take the criterion l1 or taylor"
            if reason is None:
                usable.append(group)
            else:
                left.append(Skipped(layer=" + ".join(group.layers), reason=reason))
        return usable, left


def _without_blocks(work: Work, count: int) -> Work:
    """Remove blocks one by one, each time the one without which the validation loss is lowest."""
    model, removed = work.model, []
    for done in range(count):
        candidates = residual_blocks(model)
        if not candidates:
            reason = f"has {done} residual blocks with an identity shortcut, {count} were to go"
            work = work.skipping(Skipped(layer=model.name, reason=reason))
            break
        losses = [_validation_loss(without_block(model, block), work.bench) for block in candidates]
        best = candidates[int(np.argmin(losses))]
        model = without_block(model, best)
        removed.append({"block": best.add, "validation_loss": min(losses)})
        work.bench.tell(f"{_NAME}: removing blocks", (done + 1) / count)
    paths = {variable.path for variable in model.weights}
    masks, books = _only(work.masks, paths), _only(work.codebooks, paths)
    return replace(work, model=model, masks=masks, codebooks=books).noting(_NAME, blocks_removed=removed)


def _validation_loss(model: Any, bench: Bench) -> float:
    tf, module, data = tensorflow(), keras(), bench.data
    bare = logit_model(model) if data.kind == "classification" else model
    total = 0.0
    for start in range(0, len(data.y_validation), _BATCH):
        rows = slice(start, start + _BATCH)
        parts = [tf.constant(part[rows]) for part in data.x_validation]
        labels = data.y_validation[rows]
        given = parts[0] if len(parts) == 1 else module.tree.pack_sequence_as(bare.input, parts)
        outputs = module.tree.flatten(bare(given, training=False))
        total += float(training_loss(data.kind, outputs[0], labels, None)) * len(labels)
    return total / len(data.y_validation)


def _tuned(work: Work, settings: FineTune) -> Work:
    if not settings.epochs:
        return work
    trained = fine_tune(work.model, work.bench, settings, held(work), _NAME)
    values = {path: trained.parameters[path][0] for path in work.codebooks}
    return replace(work, model=trained.model, codebooks=kept(work, values))


def _only(held_by_path: Mapping[str, Any], paths: set[str]) -> dict[str, Any]:
    return {path: value for path, value in held_by_path.items() if path in paths}


def _made_by_layer(model: Any) -> dict[str, int]:
    channels = find_channels(model)
    return channels.made_by_layer(channels.all_kept())
