"""Closes windows: chooses how incumbent and candidate are brought to run.

Decided here: side by side where both are loaded, serving blocks only where both take and give the same tensors, blocks
in turn where there is no memory for both, alone where the incumbent cannot run the candidate's items. How two variants
change places stands in `exchanges`. It knows bundles by what `open_bundle` and `start` give, and nothing of rollouts.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from edgeflock_agent.children.runner import Answer, Closed, HardStop, ModelProcess
from edgeflock_agent.serving.endpoint import Serving, Turn, end_turn
from edgeflock_agent.trial.board import Board, Bundle
from edgeflock_agent.trial.exchanges import Exchanges
from edgeflock_agent.trial.likeness import same_inputs, same_outputs
from edgeflock_agent.trial.side import Inputs, SideName, SideStopped
from edgeflock_agent.trial.window import WindowSides, run_window
from edgeflock_deploy.bundle import Manifest
from edgeflock_deploy.messages.orders import TrialSettings
from edgeflock_deploy.reasons import Reason

if TYPE_CHECKING:  # rarely needed, and imported when it is, as are the windows of other modes
    from edgeflock_agent.trial.seat import Seat


class Over(NamedTuple):
    """Whether a trial has ended.

    `now` is asked on the lane that closes the window, again and again, and shows that it goes on; `at_all` anywhere.
    """

    now: Callable[[], bool]
    at_all: Callable[[], bool]


class Trials:
    """The windows of all trials of this device.

    Args:
        open_bundle: gives a model's bundle that is on the disk.
        start: starts a variant in a child; raises HardStop.
        board: what trials share with the rest of the agent.
        exchanges: of two variants in one place.
        rng: draws items and orders.
    """

    def __init__(
        self,
        open_bundle: Callable[[str, str], Bundle],
        start: Callable[[Manifest], ModelProcess],
        board: Board,
        exchanges: Exchanges,
        rng: random.Random,
    ) -> None:
        self._open_bundle, self._start, self._rng = open_bundle, start, rng
        self._board, self._exchanges = board, exchanges
        self._unlike: set[tuple[str, str, str]] = set()  # candidates, their forms, and incumbents unlike them
        # by model, the two that have their slices open, and whether the candidate's items fit both
        self._side_by_side: dict[str, tuple[ModelProcess, ModelProcess, bool]] = {}

    # --- both loaded --------------------------------------------------------------------------------------------------

    def window(
        self,
        model: str,
        digest: str,
        new: ModelProcess,
        old: Serving | None,
        settings: TrialSettings,
        over: Over,
    ) -> WindowSides | None:
        """Close one window of two variants that are both loaded, or of a candidate alone; None: no slice, or no time.

        Raises:
            SideStopped: one of the two must not run any longer, or was closed.
        """
        bundle = self._open_bundle(model, digest)
        if bundle.evaluation is None:
            return None
        if old is None:
            if new.slice_path != bundle.evaluation:
                _open_slice(new, bundle, "new")
            return self._alone(None, new, settings, over)
        if not self._same_items(model, bundle, old, new):
            return self._alone(old.process if old.process.slice is not None else None, new, settings, over)
        # What an application asks of a model that keeps state means nothing without what it asked before.
        live = same_inputs(old.process, new) and not (old.process.stateful or new.stateful)

        def differed(inputs: Inputs, one: Answer, other: Answer | None) -> None:
            self._board.differed(model, inputs, old, digest, (one, other))

        if settings.mode == "serving" and live and same_outputs(old.process, new):
            from edgeflock_agent.trial.serving_window import run_serving_window

            def install(turn: Turn | None) -> None:
                if turn is None:
                    end_turn(self._board.turns, model)
                else:
                    self._board.turns[model] = turn

            sides = run_serving_window(
                old,
                Serving(digest, new, bundle.manifest.variant),
                settings,
                self._rng,
                install,
                should_stop=over.now,
                over=over.at_all,
                differed=differed,
            )
        else:
            if live:
                self._board.live.keep(model, old.digest, settings.live_share, over.at_all)
            sides = run_window(
                old.process,
                new,
                settings,
                self._rng,
                time.monotonic,
                should_stop=over.now,
                live=(lambda: self._board.live.take(model)) if live else (lambda: None),
                differed=differed,
            )
        return self._with_energy(sides, old.process, new, over) if settings.energy and sides is not None else sides

    def _with_energy(self, sides: WindowSides, old: ModelProcess, new: ModelProcess, over: Over) -> WindowSides:
        if self._board.meter is None:
            return sides
        from edgeflock_agent.trial.spans import energies  # few policies look at energy

        measured = energies(self._board.meter(), old, new, self._rng, over.now)
        return sides._replace(
            old=sides.old.model_copy(update={"energy": measured.old}),
            new=sides.new.model_copy(update={"energy": measured.new}),
        )

    def _alone(
        self, old: ModelProcess | None, new: ModelProcess, settings: TrialSettings, over: Over
    ) -> WindowSides | None:
        from edgeflock_agent.trial.alone_window import run_alone_window

        return run_alone_window(old, new, settings, self._rng, time.monotonic, over.now)

    def _same_items(self, model: str, bundle: Bundle, old: Serving, new: ModelProcess) -> bool:
        """Open the candidate's slice in both, once; False: the incumbent cannot run it, and has its own open if any."""
        before = self._side_by_side.get(model)
        if before is not None and before[:2] == (old.process, new):
            return before[2]
        _open_slice(new, bundle, "new")
        fits = True
        try:
            _open_slice(old.process, bundle, "old")
        except SideStopped as stopped:
            if stopped.stop is None or stopped.stop.reason is not Reason.MANIFEST_INVALID:
                raise
            fits, own = False, self._open_bundle(model, old.digest)
            if own.evaluation is not None:
                _open_slice(old.process, own, "old")
        self._side_by_side[model] = (old.process, new, fits)
        return fits

    # --- one place for two --------------------------------------------------------------------------------------------

    def alternating(
        self, model: str, digest: str, old: Serving, settings: TrialSettings, over: Over
    ) -> WindowSides | None:
        """Close one window of two variants of which one is loaded at a time; None: no slice, or no time.

        Raises:
            SideStopped: the candidate must not run any longer, or one of the two was closed.
        """
        bundle, incumbent = self._open_bundle(model, digest), self._open_bundle(model, old.digest)
        if bundle.evaluation is None:
            return None
        pair = (digest, bundle.manifest.variant, old.digest)
        with self._exchanges.exchange(model, old) as seat:

            def enter(side: SideName) -> ModelProcess:
                return self._entered(seat, side, incumbent if side == "old" else bundle, bundle)

            stopped = Over(lambda: over.now() or seat.recall, over.at_all)

            try:
                sides = self._in_turns(enter, pair, settings, stopped)
            except SideStopped as error:
                if error.side == "new" or error.stop is None or error.stop.reason is not Reason.MANIFEST_INVALID:
                    raise
                self._unlike.add(pair)  # the next window leaves the incumbent out
                sides = None
        if seat.stop is not None:
            raise SideStopped("new", seat.stop)
        return sides

    def _in_turns(
        self,
        enter: Callable[[SideName], ModelProcess],
        pair: tuple[str, str, str],
        settings: TrialSettings,
        stopped: Over,
    ) -> WindowSides | None:
        if pair in self._unlike:
            return self._alone(None, enter("new"), settings, stopped)
        from edgeflock_agent.trial.alternating_window import run_alternating_window

        return run_alternating_window(enter, settings, self._rng, time.monotonic, stopped.now)

    def _entered(self, seat: Seat, side: SideName, wanted: Bundle, bundle: Bundle) -> ModelProcess:
        """Have a variant in the seat, with the candidate's slice open."""
        if seat.taken_by is None or seat.taken_by.digest != wanted.digest:
            seat.vacate()
            try:
                process = self._start(wanted.manifest)
            except HardStop as stop:
                raise SideStopped(side, stop) from None
            seat.put(Serving(wanted.digest, process, wanted.manifest.variant))
        taken = seat.taken_by
        if taken is None:
            raise SideStopped(side, None)
        if taken.process.slice_path != bundle.evaluation:
            _open_slice(taken.process, bundle, side)
        return taken.process


def _open_slice(child: ModelProcess, bundle: Bundle, side: SideName) -> None:
    assert bundle.evaluation is not None
    task = bundle.manifest.task
    try:
        child.open_slice(bundle.evaluation, kind=task.kind, agreement_atol=task.agreement_atol)
    except Closed:
        raise SideStopped(side, None) from None
    except HardStop as stop:
        raise SideStopped(side, stop) from None
