import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeflock_compression.proof.certificate import Certificate, Guards, certify, certify_all, holm
from edgeflock_compression.proof.certificate_text import rounded_up
from edgeflock_compression.proof.metrics import metric_named
from edgeflock_compression.proof.paired import tango_p, tango_upper
from edgeflock_deploy.errors import BadInput

ACCURACY = metric_named("accuracy")


def answering(classes: Any, width: int = 3) -> Any:
    """Outputs whose argmax is the classes."""
    return np.eye(width)[classes]


def example(n: int, b: int, c: int, both_wrong: int = 0) -> tuple[Any, Any, Any]:
    """Outputs of a parent and a variant, and labels, with b and c discordant items."""
    y = np.arange(n) % 3
    parent, variant = y.copy(), y.copy()
    variant[:b] = (y[:b] + 1) % 3
    parent[b : b + c] = (y[b : b + c] + 1) % 3
    for model in (parent, variant):
        model[b + c : b + c + both_wrong] = (y[b + c : b + c + both_wrong] + 2) % 3
    return answering(parent), answering(variant), y


def regression(n: int = 400, noise: float = 0.05, seed: int = 0) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(seed)
    y = rng.normal(size=(n, 2))
    parent = y + 0.4 * rng.normal(size=y.shape)
    return parent, parent + noise * rng.normal(size=y.shape), y


def test_a_proportion_is_certified_by_tangos_bound_in_points() -> None:
    parent, variant, y = example(10_000, 12, 9, both_wrong=300)
    found = certify(parent, variant, y, ACCURACY, margin=0.5, candidates_seen=37)
    assert (found.b, found.c, found.n, found.unit, found.bound_method) == (12, 9, 10_000, "pt", "tango")
    assert found.parent_value == pytest.approx(0.9691)
    assert found.variant_value == pytest.approx(0.9688)
    assert found.loss == pytest.approx(0.03)
    assert found.loss_upper_95 == pytest.approx(100 * tango_upper(12, 9, 10_000))
    assert found.p_value == found.holm_p == tango_p(12, 9, 10_000, 0.005)
    assert found.mcnemar_p == pytest.approx(0.6636, abs=1e-4)
    assert found.candidates_seen == 37
    assert found.certified is True
    assert found.sentence == (
        "loses at most 0.12 pt of accuracy with 95 % confidence (n = 10,000, 12 against 9 discordant): "
        "certified at 0.5 pt"
    )


def test_too_few_items_say_what_they_cannot_certify() -> None:
    found = certify(*example(200, 0, 0), ACCURACY, margin=0.5)
    assert found.certified is False
    assert found.sentence == (
        "loses at most 1.34 pt of accuracy with 95 % confidence (n = 200, 0 against 0 discordant): "
        "cannot certify a margin below 1.34 pt with n = 200 and this much disagreement"
    )


def test_a_real_loss_is_not_blamed_on_the_number_of_items() -> None:
    found = certify(*example(10_000, 300, 20), ACCURACY, margin=1)
    assert found.certified is False
    assert found.sentence.endswith(": not certified at 1 pt")


def test_without_a_margin_the_bound_stands_alone() -> None:
    found = certify(*example(1_000, 3, 4), ACCURACY)
    assert found.certified is None
    assert (found.p_value, found.holm_p) == (None, None)
    assert found.sentence.endswith("no margin was asked for")


def test_a_better_variant_is_said_to_gain() -> None:
    found = certify(*example(1_000, 2, 60), ACCURACY, margin=0)
    assert found.certified is True
    assert re.match(r"gains at least 4\.\d+ pt of accuracy", found.sentence)


def test_three_gains_are_no_proof_of_a_gain() -> None:
    found = certify(*example(1_000, 0, 3, both_wrong=40), ACCURACY, margin=0.5)
    assert found.sentence.startswith("loses less than 0.01 pt of accuracy with 95 % confidence")


@given(b=st.integers(0, 60), c=st.integers(0, 60), rest=st.integers(20, 500), margin=st.floats(0.01, 20))
def test_no_sentence_promises_more_than_was_shown_nor_no_loss(b: int, c: int, rest: int, margin: float) -> None:
    found = certify(*example(b + c + rest, b, c), ACCURACY, margin=margin)
    assert found.loss_upper_95 is not None
    number = re.match(r"(loses at most|loses less than|gains at least) ([\d.]+) pt", found.sentence)
    assert number is not None
    said = float(number.group(2)) * (-1 if number.group(1) == "gains at least" else 1)
    assert said >= found.loss_upper_95 - 1e-6
    assert said == pytest.approx(found.loss_upper_95, abs=0.0101)
    assert "no loss" not in found.sentence
    assert f"n = {found.n:,}" in found.sentence
    if abs(found.loss_upper_95 - margin) > 1e-6:
        assert found.certified == (found.loss_upper_95 <= margin)


def test_a_variant_with_nan_is_never_certified() -> None:
    parent, variant, y = example(10_000, 1, 1)
    variant[7] = np.nan
    found = certify(parent, variant, y, ACCURACY, margin=5)
    assert found.guards == Guards(nan_items=1, constant=False, agreement=0.9998 - 0.0001)
    assert found.certified is False
    assert found.sentence.endswith("not certified, because 1 of 10,000 outputs hold NaN")
    for name in ("auc", "f1"):
        refused = certify(parent, variant, y, metric_named(name), margin=5)
        assert (refused.certified, refused.loss_upper_95) == (False, None)
        assert refused.sentence == "not certified: 1 of 10,000 outputs hold NaN (n = 10,000)"


def test_a_regression_with_nan_or_infinity_is_never_certified() -> None:
    for value, why in ((np.nan, "hold NaN"), (np.inf, "its mse is not finite")):
        parent, variant, y = regression()
        variant[3, 1] = value
        found = certify(parent, variant, y, metric_named("mse"), margin=5)
        assert found.certified is False
        assert why in found.sentence


def test_a_constant_answer_is_never_certified_unless_the_parent_gives_one_too() -> None:
    y = np.r_[np.zeros(990, int), np.ones(10, int)]
    constant = answering(np.zeros(1_000, int))
    found = certify(answering(y), constant, y, ACCURACY, margin=5)
    assert found.loss_upper_95 is not None
    assert found.loss_upper_95 < 5
    assert found.certified is False
    assert "it answers the same for all 1,000 items, where the parent does not" in found.sentence
    assert certify(constant, constant, y, ACCURACY, margin=5).certified is True
    parent, variant, targets = regression()
    flat = certify(parent, np.zeros_like(variant), targets, metric_named("r2"))
    assert (flat.guards.constant, flat.certified) == (True, False)


def test_agreement_is_reported_and_does_not_gate() -> None:
    parent, variant, y = example(1_000, 0, 0, both_wrong=500)
    variant = variant.copy()
    variant[:500] = answering((y[:500] + 1) % 3)  # differs from the parent, and both are wrong
    found = certify(parent, variant, y, ACCURACY, margin=0.5)
    assert found.guards.agreement == 0.5
    assert found.certified is True
    parent, variant, targets = regression()
    mse = metric_named("mse")
    assert certify(parent, variant, targets, mse).guards.agreement is None
    assert certify(parent, variant, targets, mse, agreement_atol=1.0).guards.agreement == 1.0


def test_errors_lose_in_per_cent_of_the_parents() -> None:
    parent, variant, y = regression()
    found = certify(parent, variant, y, metric_named("mse"), margin=10)
    assert (found.unit, found.bound_method, found.b, found.mcnemar_p) == ("%", "bootstrap_bca", None, None)
    assert found.variant_value is not None
    assert found.loss == pytest.approx(100 * (found.variant_value - found.parent_value) / found.parent_value)
    assert found.loss is not None
    assert found.loss_upper_95 is not None
    assert found.loss < found.loss_upper_95 < 10
    assert found.certified is True
    assert re.fullmatch(
        r"mse grows by at most [\d.]+ % with 95 % confidence \(n = 400, paired bootstrap\): certified at 10 %",
        found.sentence,
    )
    assert certify(parent, variant + 0.5, y, metric_named("mse"), margin=10).certified is False


@pytest.mark.parametrize("name", ["auc", "f1"])
def test_other_statistics_are_certified_by_a_bootstrap(name: str) -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 600)
    parent = rng.normal(size=(600, 3)) + 3 * answering(y)
    variant = parent + 0.4 * rng.normal(size=parent.shape)
    near, worse = (
        certify(parent, outputs, y, metric_named(name), margin=3)
        for outputs in (variant, parent + 2 * rng.normal(size=parent.shape))
    )
    assert near.certified is True
    assert worse.certified is False
    assert near.loss is not None
    assert near.loss_upper_95 is not None
    assert near.loss < near.loss_upper_95
    assert near.bound_method == "bootstrap_percentile"
    assert near == certify(parent, variant, y, metric_named(name), margin=3)


@pytest.mark.parametrize("name", ["auc", "f1"])
@pytest.mark.parametrize("n", [100, 2_000])
def test_where_nothing_differs_room_is_left_for_a_loss_that_was_not_drawn(name: str, n: int) -> None:
    parent, _, y = example(n, 0, 0, both_wrong=n // 10)
    found = certify(parent, parent, y, metric_named(name), margin=100 * 3 / n / 2)
    assert found.loss == 0
    assert found.loss_upper_95 is not None
    assert 100 * 2 / n < found.loss_upper_95 < 100 * 9 / n  # an exact bound for a rate would be 3 in n
    assert found.certified is False


def test_room_is_left_with_a_single_score_per_item_too() -> None:
    rng = np.random.default_rng(0)
    for positive in (0.2, 0.8):
        y = (rng.random(300) < positive).astype(int)
        scores = (y + rng.normal(size=300))[:, None]
        found = certify(scores, scores, y, metric_named("auc"))
        assert found.loss_upper_95 is not None
        assert 0.3 < found.loss_upper_95 < 10


def test_an_error_without_limit_is_refused_where_next_to_nothing_differs() -> None:
    parent, variant, y = regression()
    nearly = np.where(np.arange(400)[:, None] < 3, variant, parent)
    found = certify(parent, nearly, y, metric_named("mae"), margin=1)
    assert found.certified is False
    assert found.sentence == (
        "not certified: the two differ on 3 of 400 items only, too few for a bootstrap (10 needed) (n = 400)"
    )
    same = certify(parent, parent, y, metric_named("r2"))
    assert same.certified is None
    assert same.sentence.startswith("no bound can be given: the two differ on 0 of 400 items only")


def test_the_bound_of_f1_holds_where_few_items_are_discordant() -> None:
    f1 = replace(metric_named("f1"), resamples=2_000)
    rng = np.random.default_rng(0)
    held = []
    for seed in range(100):
        y = rng.integers(0, 3, 600)
        parent = np.where(rng.random(600) < 0.95, y, (y + 1) % 3)
        lost = (parent == y) & (rng.random(600) < 0.005)  # macro F1 over alike classes falls as accuracy: .475 points
        variant = np.where(lost, (y + 2) % 3, parent)
        found = certify(answering(parent), answering(variant), y, f1, seed=seed)
        assert found.loss_upper_95 is not None
        held.append(found.loss_upper_95 >= 0.475)
    assert np.mean(held) >= 0.94


def test_a_share_of_nothing_is_refused() -> None:
    _, variant, y = regression()
    found = certify(y, variant, y, metric_named("mse"), margin=1)
    assert found.certified is False
    assert "the parent's mse is 0" in found.sentence


def test_a_function_of_the_user_gets_the_bound_that_fits_what_it_returns(tmp_path: Path) -> None:
    path = tmp_path / "own.py"
    path.write_text(
        "def right(outputs, y):\n    return outputs.argmax(1) == y\n"
        "def cost(outputs, y):\n    return -abs(outputs.argmax(1) - y)\n"
        "def whole(outputs, y):\n    return float((outputs.argmax(1) == y).mean())\n"
    )
    parent, variant, y = example(500, 12, 9)
    accuracy, right, cost, whole = (
        certify(parent, variant, y, metric_named(name), margin=5)
        for name in ("accuracy", f"{path}:right", f"{path}:cost", f"{path}:whole")
    )
    assert (right.unit, right.loss_upper_95, right.b) == ("pt", accuracy.loss_upper_95, 12)
    assert (cost.unit, cost.bound_method, whole.unit, whole.bound_method) == ("", "bootstrap_bca", "", "bootstrap_bca")
    assert accuracy.loss_upper_95 is not None
    assert whole.loss_upper_95 == pytest.approx(accuracy.loss_upper_95 / 100, rel=0.1)
    assert re.match(r"loses at most [\d.]+ of .*:whole with 95 % confidence", whole.sentence)


def test_a_metric_that_does_not_suit_the_task_or_the_items_is_refused() -> None:
    parent, variant, y = example(30, 1, 1)
    with pytest.raises(BadInput, match="not for a classification"):
        certify(parent, variant, y, metric_named("mse"))
    with pytest.raises(BadInput, match="undefined for the parent"):
        certify(parent[:, :2], variant[:, :2], np.ones(30, int), metric_named("auc"))
    for margin in (-1.0, float("nan"), float("inf")):
        with pytest.raises(BadInput, match="is no margin"):
            certify(parent, variant, y, ACCURACY, margin)
    with pytest.raises(ValueError, match="shapes"):
        certify(parent, variant[:29], y, ACCURACY)


def with_p(p: float | None, margin: float | None = 0.5) -> Certificate:
    return Certificate(
        metric="accuracy",
        unit="pt",
        n=1_000,
        parent_value=0.9,
        variant_value=0.9,
        loss=0.0,
        bound_method="tango",
        loss_upper_95=0.3,
        margin=margin,
        p_value=p,
        holm_p=p,
        candidates_seen=5,
        guards=Guards(nan_items=0, constant=False, agreement=1.0),
    )


def adjusted(ps: list[float]) -> list[float]:
    found = [one.holm_p for one in holm([with_p(p) for p in ps])]
    return [p for p in found if p is not None]


def test_holm_gives_the_textbook_example() -> None:
    assert adjusted([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.randoms())
def test_holm_keeps_its_laws(ps: list[float], random: Any) -> None:
    found = adjusted(ps)
    assert len(found) == len(ps)
    assert all(1 >= after >= before for before, after in zip(ps, found, strict=True))
    assert all(
        after <= len(ps) * before + 1e-12 for before, after in zip(ps, found, strict=True)
    )  # at least Bonferroni
    order = np.argsort(ps, kind="stable")
    assert (np.diff(np.array(found)[order]) >= 0).all()
    assert found[order[0]] == pytest.approx(min(1.0, len(ps) * min(ps)))
    shuffled = list(range(len(ps)))
    random.shuffle(shuffled)
    assert adjusted([ps[index] for index in shuffled]) == pytest.approx([found[index] for index in shuffled])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_certifies_step_by_step_until_the_first_failure(ps: list[float]) -> None:
    certified = [one.certified for one in holm([with_p(p) for p in ps])]
    going, expected = True, {}
    for step, index in enumerate(np.argsort(ps, kind="stable")):
        going = going and (len(ps) - step) * ps[index] <= 0.05
        expected[int(index)] = going
    assert certified == [expected[index] for index in range(len(ps))]


def test_those_that_ship_together_pay_for_each_other() -> None:
    pair = holm([with_p(0.03), with_p(0.04)])
    assert [one.certified for one in pair] == [False, False]
    assert pair[0].sentence.endswith("not certified at 0.5 pt among 2 that ship together (Holm p = 0.06)")
    good = holm([with_p(0.001), with_p(0.002)])
    assert good[0].sentence.endswith("certified at 0.5 pt together with 1 more")


def test_what_cannot_be_tested_counts_and_what_asks_nothing_does_not() -> None:
    found = holm([with_p(0.03), with_p(None), with_p(None, margin=None)])
    assert [one.shipped_together for one in found] == [2, 2, 1]
    assert found[0].holm_p == pytest.approx(0.06)
    assert [one.certified for one in found] == [False, False, None]
    assert holm(found) == found


def test_variants_are_certified_together_by_name() -> None:
    parent, variant, y = example(2_000, 3, 2)
    found = certify_all(parent, {"int8": variant, "bad": answering((y + 1) % 3)}, y, ACCURACY, margin=1)
    assert list(found) == ["int8", "bad"]
    assert [one.certified for one in found.values()] == [True, False]
    assert {one.shipped_together for one in found.values()} == {2}


def test_a_certificate_survives_json_and_its_words_follow_its_numbers() -> None:
    found = certify(*example(1_000, 2, 1), ACCURACY, margin=1)
    text = found.model_dump_json()
    assert json.loads(text)["sentence"] == found.sentence
    assert json.loads(text)["certified"] is True
    assert Certificate.model_validate_json(text) == found


@given(st.floats(1e-6, 1e5))
def test_rounding_goes_up_and_not_far(value: float) -> None:
    said = float(rounded_up(value))
    assert said >= value * (1 - 1e-6)
    assert said - value <= max(0.0100001, 0.1 * value)
    assert float(rounded_up(-value)) >= -value * (1 + 1e-6)
