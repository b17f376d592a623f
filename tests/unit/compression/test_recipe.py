import json
import subprocess
import sys
from pathlib import Path

import pytest

from edgeflock_compression.passes.table import PASSES
from edgeflock_compression.recipe import load_recipe, load_recipes
from edgeflock_compression.recipe_name import SHIPPED
from edgeflock_deploy.errors import BadInput

GOOD = 'name = "mine"\n[[pass]]\nuse = "ptq"\nmode = "static"\nactivations = "int16"\n'


def test_no_recipe_means_the_quantizations_without_training() -> None:
    assert tuple(recipe.name for recipe in load_recipes(())) == SHIPPED


def test_a_name_that_decodes_itself_is_a_recipe() -> None:
    recipe = load_recipe("kd50_ch25_bn_lr40_p80_c32_qat8")
    assert recipe.name == "kd50_ch25_bn_lr40_p80_c32_qat8"
    written = recipe.as_dict()["pass"]
    assert [step["use"] for step in written] == [
        "distill", "prune_channels", "fold_bn", "factorize", "prune_weights", "cluster", "qat",
    ]  # fmt: skip
    assert (written[0]["width"], written[1]["ratio"], written[3]["ratio"]) == (0.5, 0.25, 0.4)
    assert (written[4]["sparsity"], written[5]["clusters"]) == (0.8, 32)


@pytest.mark.parametrize(
    ("name", "uses"),
    [
        ("p2of4_dynamic_wi8", ["prune_weights", "ptq"]),
        ("h64", ["hash", "ptq"]),
        ("t", ["ternary", "ptq"]),
        ("b_float16", ["binary", "ptq"]),
        ("mac30_static_wi8_ai8", ["prune_channels", "ptq"]),
        ("static_wi8_ai16", ["ptq"]),
    ],
)
def test_every_part_of_a_name_is_a_pass(name: str, uses: list[str]) -> None:
    assert [step.use for step in load_recipe(name).steps] == uses


def test_a_name_may_ask_for_compensated_rounding() -> None:
    recipe = load_recipe("p80_dynamic_wi4_comp_pack3")
    assert recipe.conversion.settings.model_dump()["rounding"] == "compensated"
    assert load_recipe("p80_dynamic_wi4").conversion.settings.model_dump()["rounding"] == "nearest"
    for name in ("comp", "p80_comp", "float16_comp", "qat8_comp"):
        with pytest.raises(BadInput, match="no name that decodes itself"):
            load_recipe(name)


@pytest.mark.parametrize("name", ["c32_p80", "p80_p90", "t_c16"])
def test_a_name_with_passes_out_of_order_is_refused(name: str) -> None:
    with pytest.raises(BadInput, match="keep the order distill, prune_channels"):
        load_recipe(name)


def test_the_record_of_a_variant_is_a_recipe(tmp_path: Path) -> None:
    recipe = load_recipe("p80_c16_dynamic_wi8")
    path = tmp_path / "variant.json"
    path.write_text(json.dumps({"name": "any", "recipe": recipe.as_dict(), "seed": 0}))
    assert load_recipe(str(path)) == recipe


def test_a_file_is_read_with_its_defaults_written_out(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(GOOD)
    (written,) = load_recipe(str(path)).as_dict()["pass"]
    assert (written["use"], written["mode"], written["activations"]) == ("ptq", "static", "int16")
    assert written["calibration_items"] >= 256


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name = ", "not readable"),
        (GOOD.replace("ptq", "prune"), "there is no pass 'prune'; 'use' names one of: distill"),
        (GOOD + "speed = 1\n", "unknown key 'speed'; its settings are: mode"),
        (GOOD.replace("static", "magic"), "pass 'ptq': mode: Input should be"),
        ("seed = 1\n" + GOOD, "unknown key 'seed'"),
        ('name = "mine"\n', "pass: Field required"),
        (GOOD.replace("mine", "../mine"), "name: String should match"),
        (GOOD + GOOD.partition("\n")[2], "must convert the model exactly once"),
        ('name = "mine"\n[[pass]]\nuse = "pack"\n', "must convert the model exactly once"),
        ('name = "mine"\n[[pass]]\nuse = "pack"\n[[pass]]\nuse = "ptq"\nmode = "float32"\n', "has 'ptq' after 'pack'"),
    ],
)
def test_a_recipe_that_cannot_be_used_is_refused(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(BadInput, match=says):
        load_recipe(str(path))


def test_an_unknown_name_lists_what_exists() -> None:
    with pytest.raises(BadInput, match=", ".join(SHIPPED)):
        load_recipe("tiny")


def test_two_recipes_of_one_name_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.toml"
    path.write_text(GOOD.replace("mine", "float32"))
    with pytest.raises(BadInput, match="is given twice"):
        load_recipes(["float32", str(path)])


def test_a_recipe_ends_with_packing_whether_it_says_so_or_not() -> None:
    silent, spoken = load_recipe("p80_c32_qat8"), load_recipe("p80_c32_qat8_pack3")
    assert (silent.packing.decode_s, spoken.packing.decode_s) == (10, 3)
    assert [step.use for step in spoken.steps] == ["prune_weights", "cluster", "qat", "pack"]
    assert (spoken.trainings, spoken.conversion) == (silent.trainings, silent.conversion)


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
