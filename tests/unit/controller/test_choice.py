"""The variant per class, on paper: what is wanted, what boards measured, what is chosen."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeflock_controller.choice.facts import Variant, facts
from edgeflock_controller.choice.front import choose, dominates, known, shown_metrics, with_front
from edgeflock_controller.choice.metric import as_text
from edgeflock_controller.choice.wanted import parse_wanted
from edgeflock_controller.cli.choices import how_to_measure
from edgeflock_deploy.blobs import Blob, Encoding
from edgeflock_deploy.bundle import Manifest, Task, Tolerance
from edgeflock_deploy.errors import BadInput
from edgeflock_deploy.messages.measurements import Conditions, Energy, Measurement
from edgeflock_deploy.messages.reports import Measured
from edgeflock_deploy.messages.values import Outcome
from edgeflock_deploy.reasons import Reason
from edgeflock_deploy.rollout.choice import ChoiceRow, MetricValue

METER = Energy(mj=2.0, method="counter", scope="board_input")


def run(p50: float = 10.0, **changes: Any) -> Measurement:
    usual: dict[str, Any] = {
        "n": 260,
        "latency_ms_p50": p50,
        "latency_ms_p90": 1.1 * p50,
        "latency_ms_p95": 1.2 * p50,
        "first_inference_ms": 20.0,
        "load_ms": 30.0,
        "warmed_up": True,
        "peak_rss_bytes": 2_000_000,
        "energy": METER,
        "conditions": Conditions(),
    }
    return Measurement(**(usual | changes))


def answer(*runs: Measurement, accuracy: float | None = 0.95, **changes: Any) -> Measured:
    usual = {"token": "t", "digest": "d", "outcome": Outcome.SUCCEEDED, "accuracy": accuracy, "items": 200}
    return Measured(**(usual | {"runs": runs or (run(),)} | changes))


def manifest(variant: str, wire: int = 1_000, slice_of: str | None = "e") -> Manifest:
    def blob(sha: str, size: int) -> Blob:
        way = Encoding(codec="zstd", sha256=sha * 64, bytes=size, chunks=(sha * 64,))
        return Blob(sha256=sha * 64, bytes=2 * size, encoding=way)

    blobs = {"model": blob("a", wire), "golden": blob("b", 10)}
    if slice_of is not None:
        blobs["evaluation"] = blob(slice_of, 10)
    return Manifest(
        model="digits",
        version=1,
        variant=variant,
        blobs=blobs,
        inputs=(),
        outputs=(),
        tolerance=Tolerance(runtime="none"),
        task=Task(kind="classification", metric="accuracy"),
    )


def variant(name: str, answers: dict[str, Measured] | None = None, **about: Any) -> Variant:
    barred = about.pop("barred", None)
    return Variant(name, manifest(name, **about), answers or {}, barred)


def row(name: str, **values: float | None) -> ChoiceRow:
    told = {
        metric: MetricValue(value=v, low=v, high=v, why=None if v is not None else "why not")
        for metric, v in values.items()
    }
    return ChoiceRow(variant=name, digest=name, values=told)


# --- what is wanted ---------------------------------------------------------------------------------------------------


def test_the_operators_words_become_limits_in_the_metrics_own_units() -> None:
    wanted = parse_wanted("min energy_mj", "accuracy_drop<=1pt, latency_ms_p95<=50, rss_mb<=64, accuracy>=97%")
    assert wanted.metrics == ("energy_mj", "accuracy_drop", "latency_ms_p95", "rss_bytes", "accuracy")
    assert [one.limit for one in wanted.requirements] == [1.0, 50.0, 64e6, pytest.approx(0.97)]
    assert wanted.latency_ms == 50.0
    assert parse_wanted("max accuracy").requirements == ()


@pytest.mark.parametrize(
    ("term", "limit"),
    [
        ("rss<=64MB", 64e6),
        ("rss_bytes<64MiB", 64 * 1024**2),
        ("wire_kb<=60", 60e3),
        ("wire_kb<=60kb", 60e3),
        ("rss_kib<=1", 1024),
        ("latency_ms_p50<=0.05s", 50),
        ("energy_mj<=1J", 1000),
        ("LATENCY_MS_P50 <= 5", 5),
        ("accuracy>=1", 1),
        ("accuracy_drop<=-1pt", -1),
    ],
)
def test_units_stand_in_the_name_or_after_the_number(term: str, limit: float) -> None:
    assert parse_wanted("min wire_bytes", term).requirements[0].limit == pytest.approx(limit)


@pytest.mark.parametrize(
    ("objective", "require", "named"),
    [
        ("energy_mj", "", "energy_mj"),
        ("min speed", "", "speed"),
        ("max energy_mj", "", "worst"),
        ("min accuracy", "", "worst"),
        ("min energy_mj", "latency_ms_p95=50", "latency_ms_p95=50"),
        ("min energy_mj", "latency_ms_p95>=50", "worse"),
        ("min energy_mj", "accuracy<=0.9", "worse"),
        ("min energy_mj", "latency_ms_p95<=50MB", "unit 'MB'"),
        ("min energy_mj", "rss_mb<=64kb", "two units"),
        ("min energy_mj", "rss<=64", "no unit"),
        ("min energy_mj", "accuracy>=97", "above 1"),
        ("min energy_mj", "rss_mb<=1, rss_kb<=1000", "twice"),
        ("min energy_mj", "rss_mb<=1,,", "''"),
        ("min energy_mj", "latency_ms_p95<=-5", "can hold for no variant"),
        ("min energy_mj", "rss_mb<0", "can hold for no variant"),
        ("min energy_mj", "accuracy>1", "can hold for no variant"),
        ("min energy_mj", "accuracy>=150%", "can hold for no variant"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(objective: str, require: str, named: str) -> None:
    with pytest.raises(BadInput, match=named):
        parse_wanted(objective, require)


# --- what boards measured ---------------------------------------------------------------------------------------------


def test_a_class_is_as_good_as_its_worst_board_and_a_board_as_its_middle_run() -> None:
    boards = {"pi-1": answer(run(10), run(11), run(30)), "pi-2": answer(run(14), run(15), run(16), accuracy=0.94)}
    (found,) = facts([variant("int8", boards)]).rows
    assert found.values["latency_ms_p50"] == MetricValue(value=15.0, low=10.0, high=30.0)
    assert known(found, "accuracy") == 0.94
    assert found.boards == ("pi-1", "pi-2")


def test_only_boards_that_measured_every_variant_count() -> None:
    a = variant("a", {"pi-1": answer(run(10)), "pi-2": answer(run(99))})
    b = variant("b", {"pi-1": answer(run(20))})
    rows = facts([a, b]).rows
    assert [known(one, "latency_ms_p50") for one in rows] == [10.0, 20.0]
    apart = facts([variant("a", {"pi-2": answer(run(99))}), b]).rows
    assert [known(one, "latency_ms_p50") for one in apart] == [99.0, 20.0]
    assert all("other boards" in str(one.why) for one in apart)


def test_times_and_energy_of_emulated_and_throttled_boards_do_not_count_and_memory_does() -> None:
    for under, why in ((Conditions(emulated=True), "emulated"), (Conditions(throttled=True), "throttled")):
        (found,) = facts([variant("int8", {"vm": answer(run(10, conditions=under))})]).rows
        assert known(found, "latency_ms_p50") is None
        assert why in str(found.values["latency_ms_p50"].why)
        assert why in str(found.values["energy_mj"].why)
        assert known(found, "rss_bytes") == 2_000_000


def test_what_a_board_measured_under_another_governor_is_not_compared_and_the_row_says_so() -> None:
    slow, fast = Conditions(governor="powersave"), Conditions(governor="performance")
    a = variant("a", {"pi": answer(run(10, conditions=fast))})
    b = variant("b", {"pi": answer(run(11, conditions=fast), run(12, conditions=fast))})
    c = variant("c", {"pi": answer(run(30, conditions=slow))})
    mixed = variant("d", {"pi": answer(run(13, conditions=fast), run(39, conditions=slow))})
    older = variant("e", {"pi": answer(run(14, conditions=None))})
    rows = {row.variant: row for row in facts([a, b, c, mixed, older]).rows}
    times = {name: known(row, "latency_ms_p50") for name, row in rows.items()}
    assert times == {"a": 10.0, "b": 11.5, "c": None, "d": 13.0, "e": 14.0}
    why = "pi measured it under the governor powersave, and others under performance"
    assert rows["c"].values["latency_ms_p50"].why == rows["c"].values["energy_mj"].why == why
    assert known(rows["c"], "rss_bytes") == 2_000_000
    (alone,) = facts([c]).rows  # nothing is there that it is unlike
    assert known(alone, "latency_ms_p50") == 30.0


def test_contended_runs_count_only_where_a_board_has_no_others() -> None:
    busy = Conditions(contended=True)
    (mixed,) = facts([variant("int8", {"pi": answer(run(10), run(50, conditions=busy))})]).rows
    assert (known(mixed, "latency_ms_p50"), mixed.why) == (10.0, None)
    (only,) = facts([variant("int8", {"pi": answer(run(50, conditions=busy))})]).rows
    assert known(only, "latency_ms_p50") == 50.0
    assert "wanted the processor" in str(only.why)


@pytest.mark.parametrize(
    "energy",
    [
        Energy(reason="no meter was found"),
        Energy(mj=3.0, method="modelled", scope="board_input"),
        Energy(mj=3.0, method="counter", scope="rail"),
    ],
)
def test_energy_without_a_meter_that_may_gate_holds_the_class_with_the_reason(energy: Energy) -> None:
    found = facts([variant("int8", {"pi": answer(run(energy=energy))})])
    choice = choose(found.rows, parse_wanted("min energy_mj"))
    assert choice.digest is None
    assert "energy_mj is not known of any variant: no meter that may decide" in choice.why


def test_a_variant_that_does_not_fit_on_one_board_is_out_for_the_class() -> None:
    slow = answer(outcome=Outcome.FAILED, reason=Reason.TOO_SLOW, detail="its p95 is 9 ms", runs=())
    found = facts([variant("big", {"pi-1": answer(), "pi-2": slow}), variant("small", {"pi-1": answer()})])
    choice = choose(found.rows, parse_wanted("min latency_ms_p50"))
    assert choice.variant == "small"
    assert "it does not fit on pi-2: TOO_SLOW: its p95 is 9 ms" in str(choice.rows[0].why)


def test_a_boards_own_trouble_is_no_word_against_the_variant() -> None:
    full = answer(outcome=Outcome.FAILED, reason=Reason.DISK_FULL, detail="full", runs=())
    (found,) = facts([variant("int8", {"pi-1": full})]).rows
    assert found.why == "it was never measured"


def test_what_a_board_measured_of_another_form_of_the_bundle_does_not_count() -> None:
    (found,) = facts([variant("int8", {"pi-1": answer(variant="float32")})]).rows
    assert found.why == "it was never measured"


def test_the_drop_is_counted_on_each_board_from_the_parent_on_the_same_items() -> None:
    parent = variant("float32", {"a": answer(accuracy=0.96), "b": answer(accuracy=0.95)})
    small = variant("int8", {"a": answer(accuracy=0.955), "b": answer(accuracy=0.94)})
    other = variant("odd", {"a": answer(), "b": answer()}, slice_of="f")
    found = facts([small, parent, other])
    assert found.reference == f"float32 (the parent), on the 200 items of evaluation slice {'e' * 12}"
    drops = {one.variant: one.values["accuracy_drop"] for one in found.rows}
    assert drops["int8"].value == pytest.approx(1.0)
    assert drops["float32"].value == 0.0
    assert "another than float32's" in str(drops["odd"].why)


@pytest.mark.parametrize("here", [{}, {"b": answer(outcome=Outcome.FAILED, reason=Reason.NO_ROOM, detail="", runs=())}])
def test_where_the_parent_does_not_fit_the_drop_is_counted_from_what_other_classes_measured_of_it(here: Any) -> None:
    large = variant("float32", here)._replace(elsewhere={"pi-9": answer(accuracy=0.97), "pi-8": answer(accuracy=None)})
    found = facts([large, variant("int8", {"b": answer(accuracy=0.95)}), variant("x", {"b": answer(accuracy=0.96)})])
    assert found.reference == (
        f"float32 (the parent, as measured on pi-9), on the 200 items of evaluation slice {'e' * 12}"
    )
    drops = {one.variant: one.values["accuracy_drop"].value for one in found.rows if one.values}
    assert drops == {"int8": pytest.approx(2.0), "x": pytest.approx(1.0)}
    assert choose(found.rows, parse_wanted("min load_ms", "accuracy_drop<=1.5pt")).variant == "x"


def test_what_a_class_measured_of_the_parent_itself_goes_before_what_others_did() -> None:
    parent = variant("float32", {"a": answer(accuracy=0.95)})._replace(elsewhere={"pi-9": answer(accuracy=0.99)})
    found = facts([parent, variant("int8", {"a": answer(accuracy=0.94)})])
    assert str(found.reference).startswith("float32 (the parent), on")
    assert found.rows[1].values["accuracy_drop"].value == pytest.approx(1.0)


def test_without_the_parent_the_most_accurate_variant_is_the_reference() -> None:
    found = facts([variant("x", {"a": answer(accuracy=0.9)}), variant("y", {"a": answer(accuracy=0.92)})])
    assert str(found.reference).startswith("y (the most accurate one, as nobody measured a float32), on the 200 items")
    assert facts([variant("x", {"a": answer(accuracy=None)}, slice_of=None)]).reference is None


def test_a_p95_of_too_few_samples_is_not_known() -> None:
    few = run(n=40, latency_ms_p95=None)
    (found,) = facts([variant("x", {"a": answer(few)})]).rows
    assert "too few inferences were sampled (40)" in str(found.values["latency_ms_p95"].why)


# --- what is chosen ---------------------------------------------------------------------------------------------------


def test_the_best_objective_among_those_that_meet_the_requirements_is_chosen() -> None:
    rows = [
        row("fast", latency_ms_p50=1, accuracy=0.90),
        row("good", latency_ms_p50=2, accuracy=0.95),
        row("best", latency_ms_p50=4, accuracy=0.97),
        row("poor", latency_ms_p50=5, accuracy=0.96),
    ]
    choice = choose(rows, parse_wanted("min latency_ms_p50", "accuracy>=0.94"))
    assert choice.variant == "good"
    told = {one.variant: (one.on_front, one.meets) for one in choice.rows}
    assert told == {"fast": (True, False), "good": (True, True), "best": (True, True), "poor": (False, True)}
    assert "accuracy is 0.9, not >= 0.94" in str(next(one.why for one in choice.rows if one.variant == "fast"))


def test_variants_that_the_measurements_do_not_tell_apart_are_chosen_by_accuracy() -> None:
    def noisy(name: str, low: float, high: float, accuracy: float) -> ChoiceRow:
        latency = MetricValue(value=(low + high) / 2, low=low, high=high)
        plain = row(name, accuracy=accuracy, wire_bytes=1.0)
        return plain.model_copy(update={"values": plain.values | {"latency_ms_p50": latency}})

    wanted = parse_wanted("min latency_ms_p50", "accuracy>=0.5")
    near = [noisy("a", 10, 12, 0.90), noisy("b", 11, 13, 0.95), noisy("c", 20, 21, 0.99)]
    choice = choose(near, wanted)
    assert choice.variant == "b"
    assert "not told apart from a's" in choice.why
    assert choose([near[0], near[2]], wanted).variant == "a"


def test_a_class_that_gets_nothing_says_why() -> None:
    wanted = parse_wanted("min latency_ms_p50", "rss_mb<=1")
    assert choose([], wanted).why == "there is no variant to choose from"
    assert choose([ChoiceRow(variant="x", digest="x", why="it was never measured")], wanted).why == (
        "it was never measured"
    )
    none = choose([row("x", latency_ms_p50=1, rss_bytes=2e6)], wanted)
    assert none.why == "no variant meets the requirements (x: rss_bytes is 2 MB, not <= 1 MB)"
    assert none.digest is None


def test_a_front_without_wishes_is_drawn_by_what_is_known() -> None:
    rows = [row("x", accuracy=0.9, wire_bytes=1), row("y", accuracy=0.8, wire_bytes=2, energy_mj=None)]
    assert shown_metrics(rows) == ("accuracy", "wire_bytes")
    assert [one.on_front for one in with_front(rows, shown_metrics(rows))] == [True, False]


def test_what_nobody_measured_is_not_on_the_front() -> None:
    unmeasured = ChoiceRow(variant="x", digest="x", why="it was never measured")
    for rows in ([unmeasured], [unmeasured, row("y", accuracy=0.9)]):
        fronted = with_front(rows, shown_metrics(rows))
        assert [one.variant for one in fronted if one.on_front] == [one.variant for one in rows if one.values]


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("rss_bytes", 64e6, "64 MB"),
        ("wire_bytes", 12_300, "12.3 KB"),
        ("accuracy_drop", 1, "1 pt"),
        ("energy_mj", 2.5, "2.5 mJ"),
        ("latency_ms_p95", 50, "50 ms"),
        ("accuracy", 0.97, "0.97"),
    ],
)
def test_values_read_with_their_units(name: str, value: float, text: str) -> None:
    assert as_text(name, value) == text


VALUES = st.one_of(st.none(), st.integers(0, 3).map(float))
ROWS = st.lists(st.tuples(VALUES, VALUES, VALUES, st.integers(0, 2)), max_size=6).map(
    lambda many: [
        _spread(row(f"v{i}", latency_ms_p50=a, accuracy=b, rss_bytes=c), noise)
        for i, (a, b, c, noise) in enumerate(many)
    ]
)


def _spread(one: ChoiceRow, noise: int) -> ChoiceRow:
    latency = one.values["latency_ms_p50"]
    if latency.value is None:
        return one
    wide = latency.model_copy(update={"low": latency.value - noise, "high": latency.value + noise})
    return one.model_copy(update={"values": one.values | {"latency_ms_p50": wide}})


@given(ROWS, st.randoms(use_true_random=False), st.integers(0, 3))
@settings(max_examples=300, deadline=None)
def test_the_chosen_one_is_on_the_front_meets_all_and_no_order_changes_it(
    rows: list[ChoiceRow], rng: Any, limit: int
) -> None:
    wanted = parse_wanted("min latency_ms_p50", f"accuracy>=1, rss_bytes<={limit + 0.5}")
    choice = choose(rows, wanted)
    shuffled = rows[:]
    rng.shuffle(shuffled)
    assert choose(shuffled, wanted) == choice
    fit = [
        one
        for one in rows
        if all(known(one, metric) is not None for metric in wanted.metrics)
        and all(one_rule.holds(known(one, one_rule.metric) or 0.0) for one_rule in wanted.requirements)
    ]
    assert (choice.digest is None) == (not fit)
    if choice.digest is not None:
        chosen = next(one for one in choice.rows if one.digest == choice.digest)
        assert chosen.on_front
        assert chosen.meets
        assert not any(dominates(other, chosen, wanted.metrics) for other in rows)
        best = min(known(one, "latency_ms_p50") or 0.0 for one in fit)
        assert (chosen.values["latency_ms_p50"].low or 0.0) <= best + 2  # else it could be told apart from the best


def test_where_no_board_measured_anything_the_front_says_how_to_have_it_measured() -> None:
    bare: dict[str, Any] = {"rows": [{"boards": []}, {"boards": []}]}
    known: dict[str, Any] = {"rows": [{"boards": []}, {"boards": ["pi-1"]}]}
    what = "has idle boards measure, and deploys nothing"
    assert how_to_measure("digits@3", {"a": bare, "b": bare}) == f"`edgeflock front digits@3 --measure 'all'` {what}"
    assert how_to_measure("digits", {"a": bare, "b": known}) == f"`edgeflock front digits --measure 'class=a'` {what}"
    assert how_to_measure("digits", {"b": known}) is None
