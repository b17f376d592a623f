from __future__ import annotations

from pathlib import Path

import pytest

from edgeflock_controller.processing_file import read_processing
from edgeflock_deploy.errors import BadInput
from edgeflock_deploy.steps import Normalise, Resize


def test_a_file_declares_steps_by_input_and_output_and_its_labels(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("cat\nkühe\n", "utf-8")
    (tmp_path / "p.toml").write_text(
        """
        labels = "labels.txt"
        [[input]]
        name = "image"
        dtype = "uint8"
        shape = [-1, -1, 3]
        limit = [1080, 1920, 3]
        steps = [{do = "resize", height = 96, width = 96}, {do = "normalise", mean = [127.5], std = [127.5]}]
        [[output]]
        name = "label"
        of = "scores"
        steps = [{do = "argmax"}, {do = "labels"}]
        """
    )
    processing, labels = read_processing(tmp_path / "p.toml")
    assert labels == ("cat", "kühe")
    assert processing.inputs[0].steps == (
        Resize(height=96, width=96),
        Normalise(mean=(127.5,), std=(127.5,)),
    )
    assert [step.do for step in processing.outputs[0].steps] == ["argmax", "labels"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x = [", "not TOML"),
        ("inputs = []", "unknown key 'inputs'; keys that exist there: labels, input, output"),
        ('[[input]]\nname = "x"\nmeen = 1', "unknown key 'meen' in [[input]] 1"),
        ('[[input]]\nname = "x"\nsteps = [{do = "resize", height = 1, width = 1, centre = 1}]', "unknown key 'centre'"),
        ('[[input]]\nname = "x"\nsteps = [{do = "blur"}]', "[[input]] 1 steps 1: Input tag 'blur'"),
        ('[[input]]\nname = "x"\nsteps = [{do = "argmax"}]', "Input tag 'argmax'"),
        ('[[input]]\nname = "x"\nshape = [0]', "has a size below 1"),
        ('[[input]]\nname = "x"\nshape = [-1]', "leaves a size open; say with `limit`"),
        ('[[output]]\nname = "x"\n[[output]]\nname = "x"', "two outputs 'x'"),
        ('[[output]]\nname = "x"\nsteps = [{do = "labels"}]', 'name their file: labels = "labels.txt"'),
        ('labels = "l"\n[[output]]\nname = "x"\nsteps = [{do = "labels"}, {do = "argmax"}]', "put `labels` last"),
        ('labels = "none.txt"', "cannot be read"),
        ("[[input]]\nsteps = []", "[[input]] 1 name: Field required"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "p.toml").write_text(text)
    with pytest.raises(BadInput) as refused:
        read_processing(tmp_path / "p.toml")
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)
