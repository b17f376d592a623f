from __future__ import annotations

from pathlib import Path

import pytest

from edgeflock_deploy.operators import State, custom_operators, hidden_state, missing_operator
from edgeflock_deploy.runtime import LoadedModel, LoadFailed

DATA = Path(__file__).parents[2] / "data"
CUSTOM = DATA / "tiny_custom.tflite"


def test_the_runtimes_own_words_name_the_operator_that_it_lacks() -> None:
    with pytest.raises(LoadFailed) as failed:
        LoadedModel.load(CUSTOM)
    assert missing_operator(failed.value.detail, CUSTOM) == "Sorcery"


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("Encountered unresolved custom op: Foo.See instructions: https://…", "Foo"),
        (
            "Didn't find op for builtin opcode 'ADD' version '99'. An older version might be supported.",
            "ADD version 99",
        ),
        (
            "Select TensorFlow op(s), included in the given model, is(are) not supported by this interpreter. Make "
            "sure you apply/link the Flex delegate before inference. Node number 0 (FlexErf) failed to prepare.",
            "FlexErf",
        ),
        ("Registration failed.", "Sorcery"),  # which one it does not say: looked up in the file
        ("Cannot allocate memory", None),
        ("Input tensor 3 lacks data", None),
    ],
)
def test_other_words_are_read_too_and_a_failure_of_another_kind_is_left_alone(words: str, name: str | None) -> None:
    assert missing_operator(words, CUSTOM) == name


def test_custom_operators_are_read_off_the_file() -> None:
    assert custom_operators(CUSTOM) == ("Sorcery",)
    assert custom_operators(DATA / "tiny.tflite") == ()


@pytest.mark.parametrize("content", [b"", b"no model", (DATA / "corrupt.tflite").read_bytes()[:64]])
def test_a_file_that_is_none_has_no_operators_and_no_state(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(content)
    assert custom_operators(path) == ()
    assert hidden_state(path) is State.NONE


@pytest.mark.parametrize(
    ("name", "state"),
    [
        ("tiny", State.NONE),
        ("tiny_fed", State.NONE),
        ("tiny_kept", State.RESOURCES),
        ("tiny_recurrent", State.TENSORS),
    ],
)
def test_state_that_no_tensor_shows_is_found_in_the_file(name: str, state: State) -> None:
    assert hidden_state(DATA / f"{name}.tflite") is state
