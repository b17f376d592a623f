from __future__ import annotations

from typing import Any

import pytest

from edgeflock_controller.offers import check_offer, check_version
from edgeflock_controller.twins import Device
from edgeflock_deploy.bundle import Form, Manifest, Task, Tolerance
from edgeflock_deploy.errors import BadInput

OLD, NEW = "tflite-runtime2.14", "litert2.3"


def manifest(variant: str, *modes: str, version: int = 1) -> Manifest:
    return Manifest(
        model="digits",
        version=version,
        variant=variant,
        blobs={},
        inputs=(),
        outputs=(),
        tolerance=Tolerance(runtime=NEW),
        task=Task(kind="classification", metric="accuracy"),
        modes=modes,
    )


def device(name: str, runtime: str, device_class: str = "") -> Device:
    return Device(name, device_class or f"pi-{runtime}", runtime, 1, 0, None, "b", 1, True, 0.0, 0.0)


INT4 = manifest("small", "dynamic_wi4", "float32")
PUBLISHED = [
    INT4,
    manifest("float", "float32"),
    manifest("other_int4", "static_wi4_ai8"),
    manifest("unknown"),
    manifest("of_before", "float32", version=9),
]


def refused(*devices: Device, bundle: Manifest = INT4, selector: str = "all", published: Any = PUBLISHED) -> BadInput:
    with pytest.raises(BadInput) as error:
        check_offer(bundle, devices, selector, published)
    assert "\n" not in str(error.value)
    return error.value


def test_devices_whose_runtime_computes_it_wrongly_are_named_with_the_mode_the_runtime_and_why() -> None:
    error = refused(device("pi-1", OLD), device("pi-2", NEW))
    assert error.thing == "variant 'small' of digits@1"
    assert error.wrong == (
        "would not run rightly on pi-1 (dynamic_wi4 on tflite-runtime2.14: it computes int4 convolutions wrongly, "
        "without an error)"
    )


def test_of_many_devices_a_few_are_named_and_the_rest_counted() -> None:
    assert "pi-0, pi-1, pi-2 and 4 more (" in refused(*(device(f"pi-{n}", OLD) for n in range(7))).wrong


def test_each_runtime_has_its_own_reason() -> None:
    wrong = refused(device("pi-1", OLD), device("pi-2", "litert1.0")).wrong
    assert "pi-2 (dynamic_wi4 on litert1.0" in wrong
    assert "pi-1 (dynamic_wi4 on tflite-runtime2.14" in wrong


def test_the_mend_names_the_variants_of_that_version_that_all_devices_can_run() -> None:
    assert refused(device("pi-1", OLD)).mend == (
        "deploy a variant that all of them can run: float, or leave these devices out"
    )
    assert "publish a variant in another mode" in refused(device("pi-1", OLD), published=[INT4]).mend


def test_the_mend_narrows_the_selector_to_the_classes_that_can_run_it() -> None:
    mend = refused(
        device("pi-1", OLD), device("pi-2", NEW), device("pi-3", NEW, "b"), selector="id=pi-1,pi-2,pi-3"
    ).mend
    assert mend.endswith("or narrow it: --to 'id=pi-1,pi-2,pi-3 and class=b,pi-litert2.3'")
    mixed = refused(device("pi-1", OLD, "b"), device("pi-3", NEW, "b"))
    assert mixed.mend.endswith("or leave these devices out")


def fallback(variant: str, *modes: str) -> Form:
    return Form(variant=variant, blobs={}, inputs=(), outputs=(), tolerance=Tolerance(runtime=NEW), modes=modes)


def test_a_bundle_is_refused_only_where_none_of_its_forms_is_right() -> None:
    chain = INT4.model_copy(update={"fallbacks": (fallback("static", "static_wi4_ai8"), fallback("float", "float32"))})
    check_offer(chain, [device("pi-1", OLD), device("pi-2", NEW)], "all", [chain])
    hopeless = INT4.model_copy(update={"fallbacks": (fallback("static", "static_wi4_ai8"),)})
    error = refused(
        device("pi-1", OLD), bundle=hopeless, published=[hopeless, chain.model_copy(update={"variant": "c"})]
    )
    assert "dynamic_wi4 on tflite-runtime2.14" in error.wrong
    assert "static_wi4_ai8 on tflite-runtime2.14" in error.wrong
    assert error.mend.startswith("deploy a variant that all of them can run: c, or")


@pytest.mark.parametrize(
    ("bundle", "runtime"),
    [
        (INT4, NEW),
        (manifest("float", "float32"), OLD),
        (manifest("unknown"), OLD),  # published before modes were told, or of a kind that is not known
        (INT4, ""),  # the device has not said its runtime
    ],
)
def test_what_runs_or_is_not_known_is_not_in_the_way(bundle: Manifest, runtime: str) -> None:
    check_offer(bundle, [device("pi-1", runtime)], "all", PUBLISHED)


def test_what_every_device_would_refuse_as_too_old_is_refused_with_what_to_do() -> None:
    with pytest.raises(BadInput) as refusal:
        check_version(manifest("a", version=2), [3, 4])
    assert str(refusal.value) == (
        "version 2 of digits: would be refused by every device that is meant: they have committed version 4; "
        "`edgeflock rollback digits` takes them back to what they had; or publish it under a newer version"
    )


@pytest.mark.parametrize("committed", [[], [None], [3, None], [2], [3, 1], [2, 3]])
def test_a_version_that_some_device_may_take_is_offered(committed: list[int | None]) -> None:
    check_version(manifest("a", version=2), committed)
