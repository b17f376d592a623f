"""The trainings of a search: rungs, promotion, what ends in the report, and the deadline; time is counted in work."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from descendants import descendants, workers

from edgeflock_compression.making import CACHE_FOLDER, Order
from edgeflock_compression.parent.data import fit, load_data
from edgeflock_compression.parent.source import keras_parent
from edgeflock_compression.parent.split import split
from edgeflock_compression.recipe import Recipe, load_recipe
from edgeflock_compression.search.brackets import Brackets
from edgeflock_compression.search.candidate import Candidate
from edgeflock_compression.search.evaluation import BASELINE, Evaluator, Now, OutOfTime, Watch
from edgeflock_compression.search.front import ranks
from edgeflock_compression.search.goal import parse_goal
from edgeflock_compression.search.halving import SCREEN_ITEMS
from edgeflock_compression.search.journal import Journal
from edgeflock_compression.search.probe import Latency
from edgeflock_compression.search.reporting import Outcome
from edgeflock_compression.search.search import Wish, search
from edgeflock_compression.search.sensitivity import kernel_layers, weights_by_layer
from edgeflock_compression.search.shipping import PAGE_FILE, REPORT_FILE, order_to_ship, ship
from edgeflock_compression.search.space import with_settings
from edgeflock_compression.search.standing import bounded, front, wanted
from edgeflock_compression.search.table import Table
from edgeflock_compression.tflite.converter import convert
from edgeflock_compression.variant import MODEL_FILE, read_record
from edgeflock_compression.work import Bench, Work
from edgeflock_deploy.canonical import sha256_hex
from edgeflock_deploy.runtime import LoadedModel

_ITEMS = 16_000
_FIT_ITEMS = _ITEMS - _ITEMS // 5
_GOAL = parse_goal("drop<=3, wire<=4KB", "accuracy")
_RECIPES = ("ch50_t_qat8", "kd50_lr50_static_wi8_ai8")


_PROGRAM = """
import sys
from pathlib import Path
from edgeflock_compression.making import Order
from edgeflock_compression.recipe import load_recipe
from edgeflock_compression.search.evaluation import Evaluator, Watch
from edgeflock_compression.search.journal import Journal
from edgeflock_compression.search.probe import LocalProbe
from edgeflock_compression.search.space import with_settings
model, data, out = map(Path, sys.argv[1:])
order = Order(model, data, out, 0, 1, on="validation", wire="estimate")
watch = Watch(lambda: 0.0, 1000, lambda now: None)
evaluator = Evaluator(order, Journal(out.parent / "search.jsonl", {}), LocalProbe(), watch, 12800)
evaluator.evaluate([with_settings(load_recipe("p80_c32_float16"), {"epochs": 0.5})])
"""


class _Probe:
    """Latency by the size of the file, so that no test depends on how busy the machine is."""

    def latency(self, candidate: Path, baseline: Path) -> Latency:
        ratio = candidate.stat().st_size / baseline.stat().st_size
        return Latency(ms_p50=ratio, baseline_ms_p50=1.0, ratio=ratio)


class _Clock:
    """A clock that stands still until it is moved."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class _Workers:
    """Is told of progress, and counts the workers that run."""

    most = 0

    def __call__(self, _now: Now) -> None:
        self.most = max(self.most, len(workers()))


class Searched(NamedTuple):
    """What two trainings on many items came to."""

    order: Order
    journal: Journal
    evaluator: Evaluator
    clock: _Clock
    watch: Watch
    workers: _Workers
    all_tried: bool


@pytest.fixture(scope="module")
def searched(classifier: Path, digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Searched:
    folder, clock, workers = tmp_path_factory.mktemp("searched"), _Clock(), _Workers()
    with np.load(digits) as data:
        rows = np.arange(_ITEMS) % len(data["y_train"])
        train = {"x_train": data["x_train"][rows].astype("float32"), "y_train": data["y_train"][rows]}
        np.savez(folder / "data.npz", **train, x_test=data["x_test"], y_test=data["y_test"])
    out = folder / "out"
    order = Order(classifier, folder / "data.npz", out / "candidates", 0, 1, on="validation", wire="estimate")
    journal, watch = Journal(out / "search.jsonl", {}), Watch(clock, 1000, workers)
    evaluator = Evaluator(order, journal, _Probe(), watch, _FIT_ITEMS)
    evaluator.evaluate([load_recipe(BASELINE)])
    all_tried = Brackets([_GOAL], _FIT_ITEMS, evaluator, watch).run([_quick(name) for name in _RECIPES])
    return Searched(order, journal, evaluator, clock, watch, workers, all_tried)


def _quick(name: str) -> Recipe:
    return with_settings(load_recipe(name), {"epochs": 0.5})


def _cache(searched: Searched) -> Path:
    return searched.order.out / CACHE_FOLDER


def _passes(searched: Searched) -> list[str]:
    """The finished passes on disk."""
    return [path.name for path in _cache(searched).iterdir() if path.suffix != ".draft"]


def _at(searched: Searched, rung: int) -> list[Candidate]:
    return [one for one in searched.evaluator.known() if one.rung == rung]


def test_half_goes_up_to_more_training_and_the_names_say_how_much(searched: Searched) -> None:
    assert searched.all_tried
    assert searched.evaluator.failed == {}
    assert [one.name for one in _at(searched, 0)] == [f"{name}.e20" for name in _RECIPES]
    second, last = _at(searched, 1), _at(searched, 2)
    assert len(second) == 1
    assert len(last) == 1
    assert {one.name for one in second} < {f"{name}.e50" for name in _RECIPES}
    assert f"{last[0].name}.e50" in {one.name for one in second}
    epochs = [sum(step.get("epochs", 0) for step in rung[0].variant.recipe["pass"]) for rung in (second, last)]
    assert epochs[0] < epochs[1]


def test_who_goes_up_is_not_beaten_by_who_stays(searched: Searched) -> None:
    first = _at(searched, 0)
    rank = dict(zip([one.name for one in first], ranks([one.point(bounded([_GOAL])) for one in first]), strict=True))
    up = {one.name.replace(".e50", ".e20") for one in _at(searched, 1)}
    assert max(rank[name] for name in up) <= min(rank[name] for name in set(rank) - up)


def test_only_the_last_rung_trains_on_all_items_of_a_large_data_set(searched: Searched) -> None:
    assert {one.variant.fit_items for one in (*_at(searched, 0), *_at(searched, 1))} == {SCREEN_ITEMS}
    assert [one.variant.fit_items for one in _at(searched, 2)] == [None]


def test_one_process_at_a_time_holds_tensorflow(searched: Searched) -> None:
    assert searched.workers.most == 1


def test_what_is_known_is_not_made_again(searched: Searched) -> None:
    files = {path: path.stat().st_mtime_ns for path in searched.order.out.rglob(MODEL_FILE)}
    again = Evaluator(searched.order, searched.journal, _Probe(), searched.watch, _FIT_ITEMS)
    assert Brackets([_GOAL], _FIT_ITEMS, again, searched.watch).run([_quick(name) for name in _RECIPES])
    assert {path: path.stat().st_mtime_ns for path in searched.order.out.rglob(MODEL_FILE)} == files


def test_the_report_speaks_of_the_files_that_ship(searched: Searched, digits: Path) -> None:
    out, known = searched.order.out.parent, searched.evaluator.known()
    best = [one.name for one in front([_GOAL], known)]
    outcome = Outcome([_GOAL], known[0], known, len(known), best, (), [], {}, 1.0, "everything was tried")
    order = order_to_ship(searched.order, out, [_GOAL], len(known))
    (out / BASELINE).mkdir()  # written by an earlier run, beaten since
    report = ship(outcome, wanted([_GOAL], known, BASELINE), order, searched.watch)

    assert json.loads((out / REPORT_FILE).read_text()) == report
    assert {one["name"] for one in report["variants"]} >= {
        report["goals"][0]["shipped"] or report["goals"][0]["nearest"]
    }
    with np.load(digits) as data:
        x, y = data["x_test"].astype(np.float32), data["y_test"]
    for one in report["variants"]:
        file = out / one["name"] / MODEL_FILE
        assert (one["raw_bytes"], one["sha256"]) == (file.stat().st_size, sha256_hex(file.read_bytes()))
        model = LoadedModel.load(file)
        right = np.mean([np.argmax(model.run(item)[0]) == label for item, label in zip(x, y, strict=True)])
        assert one["accuracy"] == pytest.approx(right)
        assert one["wire_bytes"] == (out / one["name"] / "model.container").stat().st_size
        assert (one["certificate"]["candidates_seen"], one["certificate"]["n"]) == (len(known), len(y))
        assert read_record(out / one["name"]).fit_items == one["fit_items"]
    assert not (out / BASELINE).exists()
    lineage = report["lineage"]["kd50_lr50_static_wi8_ai8.e20"]
    passes = ["a student distilled", "layers factorized", "static_wi8_ai8"]
    assert lineage == {"passes": passes, "parent": BASELINE}


def test_a_training_in_flight_ends_at_the_deadline_and_counts_as_not_tried(searched: Searched) -> None:
    clock, heard = _Clock(), list[str]()

    def silent_training(now: Now) -> None:
        heard.append(now.what)
        if "prune_weights" in now.what:  # its next word would come after a fiftieth of a billion epochs
            clock.now = 2000.0

    watch = Watch(clock, 1000, silent_training)
    evaluator = Evaluator(searched.order, searched.journal, _Probe(), watch, _FIT_ITEMS)
    before, processes = len(evaluator.known()), set(descendants())
    endless = with_settings(load_recipe("p50_float16"), {"epochs": 1e5})
    with pytest.raises(OutOfTime):
        evaluator.evaluate([endless])
    assert any("prune_weights" in what for what in heard)
    assert len(evaluator.known()) == before
    assert evaluator.failed == {}
    assert set(descendants()) == processes


def test_a_search_killed_inside_a_pass_goes_on_after_the_last_finished_one(searched: Searched, tmp_path: Path) -> None:
    recipe = _quick("p80_c32_float16")
    done = set(_passes(searched))
    killed = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, str(searched.order.model), str(searched.order.data), str(searched.order.out)],
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 300
    while not (first := set(_passes(searched)) - done):
        assert killed.poll() is None, killed.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    killed.kill()
    killed.communicate()
    made = {name: (_cache(searched) / name).stat().st_mtime_ns for name in first}
    assert len(made) == 1

    journal = Journal(searched.order.out.parent / "search.jsonl", {})
    assert recipe.name not in {one.name for one in journal.candidates.values()}
    evaluator = Evaluator(searched.order, journal, _Probe(), searched.watch, _FIT_ITEMS)
    (found,) = evaluator.evaluate([recipe])
    assert found.name == recipe.name
    assert {name: (_cache(searched) / name).stat().st_mtime_ns for name in first} == made
    assert len(set(_passes(searched)) - done) == 2


def test_a_layer_with_batch_norm_goes_by_the_name_that_recipes_know(keras_module: Any, digits_images: Path) -> None:
    layers = keras_module.layers
    given = keras_module.Input((8, 8, 1))
    x = layers.ReLU()(layers.BatchNormalization(name="norm")(layers.Conv2D(16, 3, use_bias=False, name="conv")(given)))
    model = keras_module.Model(given, layers.Dense(10, activation="softmax", name="head")(layers.Flatten()(x)))
    parent = keras_parent(model, "0" * 64, "model")
    work = Work(Bench(parent, split(fit(load_data(digits_images), parent.inputs), 0), 0), parent.model)
    assert list(weights_by_layer(convert(work, "float32"), kernel_layers(work))) == ["conv", "head"]


def test_what_a_layer_saves_in_time_is_asked_of_the_probe_that_was_given(searched: Searched, tmp_path: Path) -> None:
    table = Table(tmp_path / "sensitivity.json", {})
    table.complete(searched.order, Watch(_Clock(), 1000, lambda _: None), _Probe())
    float_bytes = (searched.order.out / BASELINE / MODEL_FILE).stat().st_size
    quantized = [row for row in table.rows if row.option in ("int8", "int4") and row.points_lost is not None]
    assert any(row.raw_bytes_saved > 0 for row in quantized)
    for row in quantized:
        assert row.latency_us_saved == pytest.approx(1000 * row.raw_bytes_saved / float_bytes)


def test_a_tflite_with_targets_that_are_no_classes_is_searched_without_trainings(
    keras_module: Any, searched: Searched, digits: Path, tmp_path: Path
) -> None:
    with np.load(digits) as data:  # the probabilities of the classes, to be met as numbers
        x = {name: data[name].astype("float32") for name in ("x_train", "x_test")}
        y = {f"y_{part}": np.eye(10, dtype="float32")[data[f"y_{part}"]] for part in ("train", "test")}
    np.savez(tmp_path / "data.npz", **x, **y)
    parent = searched.order.out / BASELINE / MODEL_FILE
    clock, out = _Clock(), tmp_path / "out"

    def until_calibrated(now: Now) -> None:
        clock.now += 1000.0 * now.what.startswith("static_")

    wish = Wish(parent, tmp_path / "data.npz", ("r2>=0.5, wire<=10KB", "drop<=1"), out, threads=1)
    report = search(wish, until_calibrated, _Probe(), clock)
    assert report["unit"] == "pt"
    assert {one["rung"] for one in report["candidates"]} == {None}
    assert {"float32", "dynamic_wi8"} == {one["name"] for one in report["candidates"]}
    assert all(one["metric"] == "r2" for one in report["variants"])
    assert report["goals"][0]["shipped"] is not None
    assert (out / PAGE_FILE).is_file()
