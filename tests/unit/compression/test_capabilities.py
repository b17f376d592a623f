import pytest

from edgeflock_compression.passes.ptq import Settings, mode_names
from edgeflock_compression.quantization.capabilities import may_run, remark, remarks, why_not

OLD, NEW = "tflite-runtime2.14", "litert2.3"
SAFE = ["float32", "float16", "weight_only_wi8", "static_wi8_ai8", "static_wi8_ai16", "dynamic_wi8_dense_per_tensor"]
UNSAFE = ["dynamic_wi8", "dynamic_wi4", "dynamic_wi4_dense_per_tensor", "weight_only_wi4", "static_wi4_ai8"]


@pytest.mark.parametrize("mode", SAFE)
def test_what_runs_everywhere_may_be_offered_everywhere(mode: str) -> None:
    assert may_run(mode, OLD) is None
    assert may_run(mode, NEW) is None


@pytest.mark.parametrize("mode", UNSAFE)
def test_what_the_old_runtime_refuses_or_computes_wrongly_is_kept_from_it_with_a_reason(mode: str) -> None:
    reason = may_run(mode, OLD)
    assert reason is not None
    assert OLD in reason
    assert mode in reason
    assert may_run(mode, NEW) is None


@pytest.mark.parametrize("runtime", ["tflite-runtime2.5", "litert1.0", "other", "other9"])
def test_a_runtime_that_was_not_tried_counts_as_old(runtime: str) -> None:
    assert may_run("dynamic_wi4", runtime) is not None
    assert may_run("static_wi8_ai8", runtime) is None


@pytest.mark.parametrize("runtime", ["litert1.4", "litert2.1", "litert2.10", "litert3.0"])
def test_a_newer_runtime_is_held_to_run_what_the_one_before_ran(runtime: str) -> None:
    assert may_run("static_wi4_ai8", runtime) is None


def test_slow_modes_carry_a_remark() -> None:
    assert "10 times" in (remark("static_wi8_ai16") or "")
    assert remark("static_wi8_ai8") is None


def test_a_file_of_several_modes_may_be_offered_where_all_of_them_run() -> None:
    modes = ("dynamic_wi4", "dynamic_wi8", "float32")
    assert why_not(modes, NEW) is None
    assert why_not(("float32", "static_wi8_ai8"), OLD) is None
    assert why_not((), OLD) is None
    why = why_not(modes, OLD) or ""
    assert all(reason in why for reason in (may_run("dynamic_wi4", OLD) or "-", may_run("dynamic_wi8", OLD) or "-"))


def test_what_is_to_know_of_a_file_is_said_once_with_the_runtimes_that_it_is_not_for() -> None:
    assert remarks(("float32", "static_wi8_ai8")) == ()
    slow, barred = remarks(("static_wi4_ai16", "static_wi8_ai16"))
    assert slow == remark("static_wi8_ai16") == remark("static_wi4_ai16")
    assert barred.startswith(f"not for every runtime: static_wi4_ai16 on {OLD}: ")


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"mode": "float16"}, ("float16",)),
        ({"mode": "dynamic"}, ("dynamic_wi8",)),
        ({"mode": "dynamic", "dense_per_tensor": True}, ("dynamic_wi8_dense_per_tensor",)),
        ({"mode": "static", "activations": "int16"}, ("static_wi8_ai16",)),
        ({"mode": "static", "weights": "int4"}, ("static_wi4_ai8", "static_wi8_ai8")),
        ({"mode": "dynamic", "layer": [{"match": "a", "weights": "int4"}]}, ("dynamic_wi4", "dynamic_wi8")),
        ({"mode": "dynamic", "layer": [{"match": "a", "weights": "float"}]}, ("dynamic_wi8",)),
    ],
)
def test_the_settings_of_the_pass_name_the_modes_that_they_need(settings: dict[str, object], names: object) -> None:
    assert mode_names(Settings.model_validate(settings)) == names
