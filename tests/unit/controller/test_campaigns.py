"""Campaigns on a real store: who is asked to measure what, what answers mean, and the rollout that follows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from edgeflock_controller.campaigns import ANSWER_S, CAMPAIGN_S, Campaigns
from edgeflock_controller.freezes import Freeze
from edgeflock_controller.fronts import FRESH_S, SOON_S
from edgeflock_controller.measurements import Campaign
from edgeflock_controller.registry import Bundle
from edgeflock_controller.rollouts import Rollouts
from edgeflock_controller.store import Store
from edgeflock_deploy.blobs import Blob, Encoding
from edgeflock_deploy.bundle import Manifest, Tolerance
from edgeflock_deploy.bundle import Task as ModelTask
from edgeflock_deploy.errors import BadInput
from edgeflock_deploy.messages.measurements import Conditions, Measurement
from edgeflock_deploy.messages.reports import Measured, Reported
from edgeflock_deploy.messages.values import Outcome
from edgeflock_deploy.policy.policy_file import load_policy
from edgeflock_deploy.reasons import Reason
from edgeflock_deploy.rollout.choice import Choice

AT = 1_000.0
P50 = {("tiny", "int8"): 5.0, ("tiny", "float32"): 50.0, ("big", "int8"): 4.0, ("big", "float32"): 2.0}


def manifest(variant: str, **more: Any) -> Manifest:
    def blob(sha: str) -> Blob:
        sha256 = (sha * 64)[:64]
        return Blob(sha256=sha256, bytes=10, encoding=Encoding(codec="zstd", sha256=sha256, bytes=5, chunks=(sha256,)))

    return Manifest(
        model="digits",
        version=1,
        variant=variant,
        blobs={"model": blob("ab"[variant == "int8"]), "golden": blob("c"), "evaluation": blob("d")},
        inputs=(),
        outputs=(),
        tolerance=Tolerance(runtime="none"),
        task=ModelTask(kind="classification", metric="accuracy"),
        **more,
    )


class Headquarters:
    """A store with two variants, devices that are played, and what the campaigns make of them."""

    def __init__(self, store: Store, *variants: Manifest) -> None:
        self.store, self.at = store, AT
        self.rollouts = Rollouts(store)
        self.campaigns = Campaigns(store, self.rollouts)
        self.campaigns.launch = self._launch
        self.launched: list[Choice] = []
        self.classes: dict[str, str] = {}
        self.seq = 0
        self.refuses: BadInput | None = None
        with store.transaction():
            for one in variants or (manifest("float32"), manifest("int8")):
                store.registry.add_bundle(Bundle(f"digest-{one.variant}", one, b"{}", AT))

    def device(self, name: str, device_class: str, *, online: bool = True, runtime: str = "r1") -> None:
        self.classes[name] = device_class
        with self.store.transaction():
            self.store.twins.put_device(self._report(name, {}, runtime), online, self.at)

    def begin(self, **changes: Any) -> Campaign:
        about: dict[str, Any] = {
            "id": "m1-abcd",
            "model": "digits",
            "version": 1,
            "candidates": ("digest-float32", "digest-int8"),
            "devices": tuple(self.classes),
            "selector": "all",
            "policy": load_policy("install"),
            "by": "op",
            "objective": "min latency_ms_p50",
            "require": "",
            "boards": 1,
            "sample_ms": 5_000.0,
            "started_at": self.at,
            "deadline_at": self.at + CAMPAIGN_S,
        }
        with self.store.transaction():
            return self.campaigns.begin(Campaign(**(about | changes)))

    def orders(self) -> dict[str, str]:
        """Who is to measure which variant now."""
        return {one.device: one.order.digest.removeprefix("digest-") for one in self.store.measurements.askings()}

    def answers(self, device: str, governor: str | None = None, **changes: Any) -> None:
        """A device answers what it is asked."""
        (order,) = self.store.measurements.orders(device).values()
        variant = order.digest.removeprefix("digest-")
        p50 = P50[self.classes[device], variant]
        run = Measurement(
            n=260, latency_ms_p50=p50, latency_ms_p90=p50, latency_ms_p95=p50, first_inference_ms=1.0, load_ms=1.0,
            warmed_up=True, peak_rss_bytes=1_000, conditions=Conditions(governor=governor),
        )  # fmt: skip
        answer = {"outcome": Outcome.SUCCEEDED, "variant": variant, "runs": (run,), "accuracy": 0.9, "items": 10}
        said = Measured(token=order.token, digest=order.digest, **(answer | changes))
        self.hear(device, said)

    def fails(self, device: str, reason: Reason) -> None:
        self.answers(device, outcome=Outcome.FAILED, reason=reason, detail="so it is", runs=())

    def hear(self, device: str, said: Measured) -> None:
        with self.store.transaction():
            self.campaigns.heard(self._report(device, {"digits": said}), self.at)
            self.campaigns.tick(self.at)

    def passes(self, seconds: float) -> None:
        self.at += seconds
        with self.store.transaction():
            self.campaigns.tick(self.at)

    def campaign(self) -> Campaign:
        found = self.store.measurements.campaign("m1-abcd")
        assert found is not None
        return found

    def chosen(self) -> dict[str, str | None]:
        (choice,) = self.launched
        return {name: one.variant for name, one in choice.classes.items()}

    def _report(self, device: str, measured: dict[str, Measured], runtime: str = "r1") -> Reported:
        self.seq += 1
        return Reported(
            device=device, boot_id="b", seq=self.seq, device_class=self.classes[device], runtime=runtime,
            free_bytes=1, measured=measured,
        )  # fmt: skip

    def _launch(self, _campaign: Campaign, choice: Choice, _at: float) -> str:
        if self.refuses is not None:
            raise self.refuses
        self.launched.append(choice)
        return "r1-abcd"


Open = Callable[..., Headquarters]


@pytest.fixture
def hq(store: Store) -> Headquarters:
    return Headquarters(store)


def test_a_board_of_each_class_measures_each_variant_in_turn_and_each_class_gets_its_best(hq: Headquarters) -> None:
    for name, device_class in {"t1": "tiny", "t2": "tiny", "b1": "big"}.items():
        hq.device(name, device_class)
    begun = hq.begin()
    assert begun.rollout is None
    assert hq.orders() == {"b1": "float32", "t1": "float32"}
    assert hq.campaigns.take_moved() == {"b1", "t1"}
    hq.answers("b1")
    assert hq.orders() == {"b1": "int8", "t1": "float32"}
    for device in ("b1", "t1", "t1"):
        hq.answers(device)
    assert hq.orders() == {}
    assert hq.chosen() == {"tiny": "int8", "big": "float32"}
    assert (hq.campaign().rollout, hq.campaign().failed) == ("r1-abcd", None)
    assert hq.campaigns.needed_digests() == set()


def test_how_long_a_variant_took_is_noted_with_what_was_measured_of_it(hq: Headquarters) -> None:
    hq.device("t1", "tiny")
    hq.begin()
    hq.at += 12
    hq.fails("t1", Reason.NO_ROOM)  # which takes no time, and says nothing of the next one
    hq.at += 7
    hq.answers("t1")
    record = hq.store.prospects.record("t1", "digits")
    assert record["measured_s"] == [pytest.approx(7.0)]
    assert hq.store.prospects.record("t1", "other")["measured_s"] == []


def test_what_is_known_and_fresh_is_not_measured_again(hq: Headquarters) -> None:
    hq.device("t1", "tiny")
    hq.begin()
    hq.answers("t1")
    hq.answers("t1")
    assert hq.begin(id="m2-abcd").rollout == "r1-abcd"  # at once
    hq.at += FRESH_S + 1
    hq.begin(id="m3-abcd", started_at=hq.at, deadline_at=hq.at + 10)
    assert hq.orders() == {"t1": "float32"}
    hq.passes(11)
    hq.device("t1", "tiny", runtime="r2")  # another runtime: what was measured says nothing of it
    hq.at = AT
    hq.begin(id="m4-abcd")
    assert hq.orders() == {"t1": "float32"}


def test_a_class_that_nobody_can_measure_is_held_with_the_reason(hq: Headquarters) -> None:
    hq.device("t1", "tiny")
    hq.device("b1", "big", online=False)
    hq.begin()
    hq.answers("t1")
    hq.answers("t1")
    (choice,) = hq.launched
    assert choice.classes["big"].digest is None
    assert choice.classes["big"].why == "it was never measured: its board is not online"


def test_without_any_class_that_gets_a_variant_nothing_is_started(hq: Headquarters) -> None:
    hq.device("t1", "tiny", online=False)
    ended = hq.begin()
    assert hq.launched == []
    assert str(ended.failed).startswith("no class gets a variant: tiny: it was never measured")


def test_a_board_in_trouble_gives_its_place_to_another_one(hq: Headquarters) -> None:
    for name in ("t1", "t2", "t3"):
        hq.device(name, "tiny")
    hq.begin()
    hq.fails("t1", Reason.DISK_FULL)
    assert hq.orders() == {"t2": "float32"}
    hq.passes(ANSWER_S + 100)  # it never answers
    assert hq.orders() == {"t3": "float32"}
    with hq.store.transaction():
        hq.store.twins.set_online("t3", False)
    hq.passes(10)
    (failed,) = [hq.campaign().failed]
    assert "t1: DISK_FULL: so it is; t2 did not answer in time; t3 went offline" in str(failed)


def test_a_variant_that_does_not_fit_is_a_result_and_no_trouble_of_the_board(hq: Headquarters) -> None:
    hq.device("t1", "tiny")
    hq.begin()
    hq.fails("t1", Reason.MEMORY_OVER_BUDGET)
    assert hq.orders() == {"t1": "int8"}
    hq.answers("t1")
    (choice,) = hq.launched
    rows = {row.variant: row.why for row in choice.classes["tiny"].rows}
    assert rows["float32"] == "it does not fit on t1: MEMORY_OVER_BUDGET: so it is"
    assert choice.classes["tiny"].variant == "int8"


def test_a_board_without_room_for_a_variant_measures_the_others_and_is_asked_again_later(hq: Headquarters) -> None:
    hq.device("t1", "tiny")
    hq.begin()
    hq.fails("t1", Reason.NO_ROOM)
    hq.answers("t1")
    assert hq.chosen() == {"tiny": "int8"}
    hq.at += SOON_S + 1
    hq.begin(id="m2-abcd", started_at=hq.at, deadline_at=hq.at + 10)
    assert hq.orders() == {"t1": "float32"}


def test_a_variant_measured_under_another_governor_than_the_others_is_not_compared_and_asked_again_later(
    hq: Headquarters,
) -> None:
    hq.device("t1", "tiny")
    hq.begin()
    hq.answers("t1", governor="performance")
    hq.answers("t1", governor="powersave")
    assert hq.chosen() == {"tiny": "float32"}
    hq.at += SOON_S + 1
    hq.begin(id="m2-abcd", started_at=hq.at, deadline_at=hq.at + 10)
    assert hq.orders() == {"t1": "int8"}


def test_a_class_without_the_parent_is_held_against_it_as_another_class_measured_it(hq: Headquarters) -> None:
    hq.device("t1", "tiny")
    hq.device("b1", "big")
    hq.begin(require="accuracy_drop<=1pt")
    hq.answers("b1", accuracy=0.95)
    hq.answers("b1", accuracy=0.94)
    hq.fails("t1", Reason.NO_ROOM)
    hq.answers("t1", accuracy=0.93)
    (choice,) = hq.launched
    assert str(choice.classes["tiny"].reference).startswith("float32 (the parent, as measured on b1), on the 10 items")
    assert choice.classes["tiny"].why == (
        "no variant meets the requirements (float32: it does not fit on t1: NO_ROOM: so it is, "
        "int8: accuracy_drop is 2 pt, not <= 1 pt)"
    )
    assert choice.classes["big"].variant == "float32"


def test_a_variant_that_is_for_other_classes_is_not_measured(store: Store) -> None:
    hq = Headquarters(store, manifest("float32"), manifest("int8", device_classes=("big",)))
    hq.device("t1", "tiny")
    hq.begin()
    hq.answers("t1")
    (choice,) = hq.launched
    assert {row.variant: row.why for row in choice.classes["tiny"].rows}["int8"] == "it is for big"
    assert choice.classes["tiny"].variant == "float32"


def test_a_campaign_whose_time_is_up_goes_on_with_what_it_has(hq: Headquarters) -> None:
    hq.device("t1", "tiny")
    hq.begin(deadline_at=AT + 50)
    hq.answers("t1")
    assert hq.orders() == {"t1": "int8"}
    hq.passes(60)
    assert hq.orders() == {}
    assert hq.chosen() == {"tiny": "float32"}


def test_an_answer_to_another_asking_changes_nothing(hq: Headquarters) -> None:
    hq.device("t1", "tiny")
    hq.begin()
    hq.hear("t1", Measured(token="old", digest="digest-float32", outcome=Outcome.SUCCEEDED))
    assert hq.orders() == {"t1": "float32"}
    hq.answers("t1", outcome=None)  # it is on its way
    assert hq.orders() == {"t1": "float32"}


def test_a_restart_in_mid_campaign_loses_nothing(hq: Headquarters, store: Store) -> None:
    hq.device("t1", "tiny")
    hq.begin()
    hq.answers("t1")
    again = Headquarters.__new__(Headquarters)
    again.__dict__ |= hq.__dict__
    again.campaigns = Campaigns(store, Rollouts(store))
    again.campaigns.launch = again._launch
    assert again.orders() == {"t1": "int8"}
    again.answers("t1")
    assert again.chosen() == {"tiny": "int8"}


def test_a_campaign_without_an_objective_only_measures(hq: Headquarters) -> None:
    hq.device("t1", "tiny")
    hq.begin(objective="", policy=None)
    with hq.store.transaction():
        hq.campaigns.overtaken("digits", "r9", None, AT)  # a rollout takes nothing from it
    hq.answers("t1")
    hq.answers("t1")
    assert (hq.campaign().ended_at, hq.campaign().rollout, hq.campaign().failed) == (AT, None, None)
    assert hq.launched == []
    assert hq.begin(id="m2-abcd").rollout == "r1-abcd"  # what it measured is known from here on


def test_a_frozen_board_measures_nothing(hq: Headquarters) -> None:
    hq.device("t1", "tiny")
    with hq.store.transaction():
        hq.store.freezes.put(Freeze("device", "t1", "demo", "op", AT))
    assert "its boards are frozen" in str(hq.begin().failed)


def test_a_newer_rollout_of_the_model_ends_a_campaign_and_its_askings(hq: Headquarters) -> None:
    hq.device("t1", "tiny")
    hq.begin()
    with hq.store.transaction():
        hq.campaigns.overtaken("other", "r8", None, AT)
        hq.campaigns.overtaken("digits", "r9", "m1-abcd", AT)
    assert hq.orders() == {"t1": "float32"}
    with hq.store.transaction():
        hq.campaigns.overtaken("digits", "r9", None, AT)
    assert hq.orders() == {}
    assert hq.campaign().failed == "r9 of the same model was started meanwhile"
    assert hq.launched == []


def test_a_rollout_that_is_refused_ends_the_campaign_with_the_reason(hq: Headquarters) -> None:
    hq.device("t1", "tiny")
    hq.begin()
    hq.refuses = BadInput("selector", "matches no device", "see `edgeflock devices`")
    hq.answers("t1")
    hq.answers("t1")
    assert "matches no device" in str(hq.campaign().failed)


# --- who measures next, on paper --------------------------------------------------------------------------------------
