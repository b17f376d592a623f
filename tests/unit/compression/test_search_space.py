"""The recipes that a search tries."""

from pathlib import Path

import pytest

from edgeflock_compression.recipe import load_recipe
from edgeflock_compression.search.space import (
    TrainFile,
    full_name,
    passes_in,
    read_train_file,
    shortened,
    trainings,
    with_settings,
)
from edgeflock_deploy.errors import BadInput


def test_every_combination_is_a_recipe_of_its_own_name() -> None:
    names = [recipe.name for recipe in trainings(["dynamic_wi8", "static_wi8_ai8"], TrainFile())]
    assert len(names) == len(set(names)) > 30


def test_a_lower_rung_trains_a_share_of_the_epochs_under_a_name_that_says_so() -> None:
    whole = load_recipe("p80_c32_dynamic_wi8")
    short = shortened(whole, 0.2)
    assert short.name == "p80_c32_dynamic_wi8.e20"
    assert [s.settings.model_dump()["epochs"] for s in short.steps[:2]] == pytest.approx(
        [0.2 * s.settings.model_dump()["epochs"] for s in whole.steps[:2]]
    )
    assert full_name(short.name) == full_name(whole.name) == whole.name
    assert shortened(whole, 1) == whole
    assert shortened(load_recipe("dynamic_wi8"), 0.2).name == "dynamic_wi8"


def test_the_users_file_sets_fine_tuning_and_adds_recipes(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("FINE_TUNE = {'epochs': 3, 'alpha': 0.5}\nrecipes = ['p60_float16', {'name': 'own', 'pass': "
                    "[{'use': 'ptq', 'mode': 'float16'}]}]\n")  # fmt: skip
    own = read_train_file(path)
    assert [recipe.name for recipe in trainings(["float16"], own)][:2] == ["p60_float16", "own"]
    settings = with_settings(load_recipe("p80"), own.fine_tune).steps[0].settings.model_dump()
    assert (settings["epochs"], settings["alpha"], settings["sparsity"]) == (3, 0.5, 0.8)


@pytest.mark.parametrize(
    "text",
    [
        "1/0",
        "raise SystemExit(3)",
        "FINE_TUNE = {'epoch': 3}",
        "FINE_TUNE = {'epochs': -1}",
        "FINE_TUNE = 3",
        "recipes = ['nonsense']",
    ],
)
def test_a_file_of_no_use_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(BadInput):
        read_train_file(tmp_path / "mine.py")


def test_passes_are_said_in_words() -> None:
    said = passes_in(load_recipe("ch50_p80_c32_static_wi4_ai8").as_dict())
    assert said == ["50% of the channels removed", "weights pruned to 80%", "weights in 32 clusters", "static_wi4_ai8"]
