import subprocess
import sys
from pathlib import Path

import pytest

from edgeflock_compression.passes.table import PASSES
from edgeflock_compression.recipe import BUILT_IN, load_recipe, load_recipes
from edgeflock_deploy.errors import BadInput

GOOD = 'name = "mine"\n[[pass]]\nuse = "ptq"\nmode = "static"\nactivations = "int16"\n'


def test_no_recipe_means_all_that_are_built_in() -> None:
    assert tuple(recipe.name for recipe in load_recipes(())) == BUILT_IN


def test_a_file_is_read_with_its_defaults_written_out(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(GOOD)
    settings = {"use": "ptq", "mode": "static", "activations": "int16", "calibration_items": 256}
    assert load_recipe(str(path)).as_dict() == {"name": "mine", "pass": [settings]}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name = ", "not readable TOML"),
        (GOOD.replace("ptq", "prune"), "there is no pass 'prune'; 'use' names one of: ptq"),
        (GOOD + "speed = 1\n", "unknown key 'speed'; its settings are: mode, activations, calibration_items"),
        (GOOD.replace("static", "magic"), "pass 'ptq': mode: Input should be 'float32'"),
        ("seed = 1\n" + GOOD, "unknown key 'seed'"),
        ('name = "mine"\n', "pass: Field required"),
        (GOOD.replace("mine", "../mine"), "name: String should match"),
        (GOOD + GOOD.partition("\n")[2], "must convert the model exactly once"),
    ],
)
def test_a_recipe_that_cannot_be_used_is_refused(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(BadInput, match=says):
        load_recipe(str(path))


def test_an_unknown_name_lists_what_exists() -> None:
    with pytest.raises(BadInput, match=", ".join(BUILT_IN)):
        load_recipe("tiny")


def test_two_recipes_of_one_name_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.toml"
    path.write_text(GOOD.replace("mine", "float32"))
    with pytest.raises(BadInput, match="is given twice"):
        load_recipes(["float32", str(path)])


def test_every_pass_says_what_it_helps() -> None:
    assert all(entry.helps for entry in PASSES.values())


def test_recipes_and_the_command_import_no_tensorflow() -> None:
    code = (
        "import sys, edgeflock_compression.pipeline, edgeflock_controller.cli.compress; "
        "print([name for name in ('tensorflow', 'keras', 'ai_edge_litert') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_the_command_imports_nothing_heavy_until_it_runs() -> None:
    code = (
        "import sys, edgeflock_controller.cli.compress; "
        "print([name for name in ('numpy', 'rich', 'pydantic') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
