"""Plans and rehearsals of the variant per class: what would be chosen, what is measured first, and what is held."""

from __future__ import annotations

import json
from typing import Any

import pytest

from edgeflock_controller.choice.campaign import Ahead, Task
from edgeflock_controller.rehearsal.board import Board, Scatter
from edgeflock_controller.rehearsal.gaps import gaps
from edgeflock_controller.rehearsal.layout import lay_out
from edgeflock_controller.rehearsal.measuring import Runs
from edgeflock_controller.rehearsal.plan import make_plan, plan_json, plot_of
from edgeflock_controller.rehearsal.regression import parse_regression
from edgeflock_controller.rehearsal.run import rehearse
from edgeflock_controller.rehearsal.subject import Subject, per_class, subject_of
from edgeflock_controller.rehearsal.unchosen import rehearsable
from edgeflock_deploy.blobs import Blob, Encoding
from edgeflock_deploy.bundle import Manifest, Tolerance
from edgeflock_deploy.bundle import Task as ModelTask
from edgeflock_deploy.errors import BadInput
from edgeflock_deploy.messages.orders import TrialSettings
from edgeflock_deploy.policy.rules import Guardrail, Policy, Stage
from edgeflock_deploy.rollout.choice import Choice, ClassChoice

P50 = Guardrail(metric="latency_ms_p50", fail_margin=0.05, pass_margin=0.10)
RUNS = Runs(3, 5000.0)
HELD = ClassChoice(why="no variant meets the requirements")


def policy(*sizes: int, guardrail: Any = (P50,)) -> Policy:
    stages = (*(Stage(devices=size, max_windows=40) for size in sizes), Stage(percent=100, max_windows=40))
    trial = TrialSettings(window_pairs=130, window_max_s=60, pause_s=1)
    return Policy(name="p", alpha=0.05, trial=trial, stage=stages, guardrail=guardrail)


def board(name: str, device_class: str, **changed: Any) -> Board:
    return Board(
        device=name, device_class=device_class, online=True, committed="old",
        scatter={"latency_ms_p50": Scatter(0.02, 0.0, 0.02)}, throttled_share=0.0, throttled_windows=1.0, pair_s=0.02,
        start_s=30.0, here_s=None, away_s=None, emulated=False, measures_energy=False, windows_from="own",
        presence_from="own",
    )._replace(**changed)  # fmt: skip


def manifest(variant: str, model_bytes: int, *, sliced: bool = True) -> Manifest:
    def blob(sha256: str, nbytes: int) -> Blob:
        way = Encoding(codec="raw", sha256=sha256, bytes=nbytes, chunks=(sha256,))
        return Blob(sha256=sha256, bytes=nbytes, encoding=way)

    blobs = {"model": blob(variant[0] * 64, model_bytes), "golden": blob("9" * 64, 10)}
    return Manifest(
        model="digits", version=2, variant=variant, inputs=(), outputs=(), tolerance=Tolerance(runtime="r"),
        task=ModelTask(kind="classification", metric="accuracy"),
        blobs=blobs | ({"evaluation": blob("8" * 64, 100)} if sliced else {}),
    )  # fmt: skip


MANIFESTS = {"fast": manifest("f", 1000), "small": manifest("e", 400)}
FAST, SMALL = ClassChoice(variant="f", digest="fast", why="w"), ClassChoice(variant="e", digest="small", why="w")


def subject(*boards: Board, objective: str = "min load_ms", ahead: Any = None, **classes: ClassChoice) -> Subject:
    choice = Choice(objective=objective, classes=classes)
    candidate = per_class("digits", 2, choice, MANIFESTS)
    return Subject(1000.0, candidate, MANIFESTS, list(boards), {}, {}, ahead or {}, RUNS)


def fleet() -> list[Board]:
    return [board("a", "x"), board("b", "x"), board("c", "y", tags={"site": "roof"}), board("d", "y")]


def test_each_class_fetches_its_own_variant_and_a_held_one_nothing() -> None:
    about = subject(*fleet(), x=FAST, y=SMALL)
    found = lay_out(plot_of(about, policy(1), "all"), MANIFESTS, {"a": frozenset({"9" * 64})}, 0)
    assert found.sites == {
        "-": {"devices": 3, "wire_bytes": 1100 + 1110 + 510},
        "roof": {"devices": 1, "wire_bytes": 510},
    }
    assert found.endings == {"succeeded": 20}
    held = lay_out(plot_of(subject(*fleet(), x=FAST, y=HELD), policy(1), "all"), MANIFESTS, {}, 0)
    assert (held.held, held.sites) == (("c", "d"), {"-": {"devices": 2, "wire_bytes": 2220}})
    assert [stage.target for stage in held.stages] == [1, 4]  # as the rollout counts them
    assert [stage.devices for stage in held.stages] == [("a",), ("b",)]
    assert held.endings == {"succeeded": 20}


def test_who_has_what_its_class_would_get_has_it_already() -> None:
    boards = [board("a", "x", committed="fast"), board("c", "y", committed="fast")]
    assert lay_out(plot_of(subject(*boards, x=FAST, y=SMALL), policy(), "all"), MANIFESTS, {}, 0).current == ("a",)


def test_what_would_first_be_measured_is_told_with_boards_bytes_and_time() -> None:
    tasks = tuple(Task(device, digest) for device in ("a", "b") for digest in ("fast", "small"))
    ahead = {"x": Ahead(tasks), "y": Ahead()}
    about = subject(*fleet(), ahead=ahead, x=ClassChoice(why="it would first be measured"), y=SMALL)
    rules = policy(guardrail=())
    found = plan_json(make_plan(about, rules, "all"), about, rules, "all")
    assert found["measuring"] == {
        "x": {
            "boards": ("a", "b"),
            "variants": ("f", "e"),
            "wire_bytes": 2 * (1110 + 510),
            "duration_s": 2 * (30 + 15),
            "waits": None,
        }
    }
    assert (
        "class x (2 devices): a, b would first measure f, e; so it has no place in the stages here" in found["missing"]
    )
    slow = about._replace(boards=[one._replace(measure_s=8.0) for one in about.boards])
    assert make_plan(slow, rules, "all").measuring["x"].duration_s == 2 * 8  # as it was recorded
    assert (found["devices_held"], found["choice"]["classes"]["y"]["variant"]) == (2, "e")
    assert json.dumps(found)


def test_a_plan_in_which_no_class_gets_a_variant_has_no_stages_and_says_why() -> None:
    about = subject(*fleet(), ahead={"x": Ahead((), "a and 1 more busy")}, x=ClassChoice(why="?"), y=HELD)
    found = plan_json(make_plan(about, policy(1), "all"), about, policy(1), "all")
    assert (found["stages"], found["detects"], found["wire_bytes"], found["duration_s"]) == ([], [], 0, None)
    assert found["missing"] == (
        "class x (2 devices): it would first be measured (a and 1 more busy); so it has no place in the stages here",
        "class y (2 devices): it is held: no variant meets the requirements",
    )
    assert found["measuring"]["x"]["waits"] == "a and 1 more busy"


def test_metrics_that_measuring_will_not_bring_are_told_before_it() -> None:
    ahead = {"x": Ahead((Task("a", "fast"),))}
    manifests = MANIFESTS | {"blind": manifest("b", 1, sliced=False)}
    about = subject(board("a", "x", emulated=True), objective="min energy_mj", ahead=ahead, x=FAST)
    wanted = about.candidate.choice
    assert wanted is not None
    wanted = wanted.model_copy(update={"require": "accuracy>=0.9, load_ms<=5"})
    about = about._replace(manifests=manifests, candidate=per_class("digits", 2, wanted, manifests))
    said = "\n".join(gaps(about, policy(1), lay_out(plot_of(about, policy(1), "all"), manifests, {}, 0)))
    assert "a: no meter that may decide is known there, and without one energy_mj stays unknown" in said
    assert "a: emulated, so energy_mj, load_ms stays unknown" in said
    assert "b: no evaluation slice, so accuracy stays unknown" in said
    assert "a would first measure f; what it gets is chosen after that" in said


def test_the_rehearsal_leaves_out_what_is_not_measured_and_what_is_held_and_runs_the_rest() -> None:
    boards = [*fleet(), board("e", "z")]
    about = subject(*boards, ahead={"y": Ahead((Task("c", "fast"),))}, x=FAST, y=SMALL, z=HELD)
    known, left_out = rehearsable(about)
    assert [str(one) for one in left_out] == [
        "class y (2 devices): c would first measure f",
        "class z (1 device): it is held: no variant meets the requirements",
    ]
    run = rehearse(plot_of(known, policy(1), "all"), 0)
    assert (run.ending, run.committed, run.set_aside) == ("succeeded", 2, ("c", "d", "e"))


def test_classes_with_variants_of_their_own_are_judged_together_and_blamed_by_board() -> None:
    about = subject(*fleet(), x=FAST, y=SMALL)
    harmless = rehearse(plot_of(about, policy(1), "all"), 0)
    assert (harmless.ending, harmless.committed) == ("succeeded", 4)
    worse = parse_regression("latency +60% on class=y")
    bad = rehearse(plot_of(about, policy(1), "all", regression=worse), 0)
    assert (bad.ending, set(bad.blamed)) == ("rolled back", {"c", "d"})
    with pytest.raises(BadInput, match="no device of this rollout is class=z"):
        rehearse(
            plot_of(subject(*fleet(), x=FAST, y=HELD), policy(1), "all", regression=worse._replace(whom="class=z")), 0
        )


def test_a_fleet_of_which_no_class_can_be_rehearsed_is_refused_in_one_line() -> None:
    about = subject(*fleet(), ahead={"x": Ahead((Task("a", "fast"),))}, x=FAST, y=HELD)
    with pytest.raises(BadInput) as caught:
        rehearsable(about)
    assert str(caught.value) == (
        "--variant auto: no class can be rehearsed: class x (2 devices): a would first measure f; class y (2 devices): "
        "it is held: no variant meets the requirements; `edgeflock front digits@2 --measure class=x,y` measures, and "
        "deploys nothing"
    )


def test_the_services_answer_becomes_the_subject() -> None:
    devices = [
        {
            "device": one.device, "device_class": one.device_class, "online": True, "committed": None,
            "holds": ["fast"], "free_bytes": 5, "measures_energy": False, "latency_ms": None,
        }
        for one in fleet()
    ]  # fmt: skip
    answer = {
        "at": 1000.0,
        "digest": None,
        "manifests": {digest: one.model_dump(mode="json") for digest, one in MANIFESTS.items()},
        "blobs": {"fast": ["f" * 64]},
        "devices": devices,
        "choice": Choice(objective="min load_ms", classes={"x": FAST, "y": HELD}).model_dump(mode="json"),
        "ahead": {
            "x": {"tasks": [], "waits": None},
            "y": {"tasks": [{"device": "c", "digest": "small"}], "waits": None},
        },
        "runs": 3,
        "sample_ms": 5000.0,
    }
    about = subject_of(json.loads(json.dumps(answer)), {})
    assert {device: one.variant for device, one in about.brought.items()} == {"a": "f", "b": "f"}
    assert about.ahead == {"x": Ahead(), "y": Ahead((Task("c", "small"),))}
    assert (about.runs, about.holds["c"]) == (RUNS, frozenset({"f" * 64}))
