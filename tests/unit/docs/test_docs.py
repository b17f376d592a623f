"""The documentation does not rot: what is generated is fresh, what is named exists."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_command_reference_is_what_the_commands_say(generate: ModuleType) -> None:
    assert (ROOT / "docs" / "cli.md").read_text() == generate.cli_reference(), "run `make docs`"


def test_the_tables_of_modules_are_what_the_docstrings_say(generate: ModuleType) -> None:
    assert (ROOT / "ARCHITECTURE.md").read_text() == generate.architecture(), "run `make docs`"


@pytest.mark.parametrize("page", ["README.md", "ARCHITECTURE.md", "docs/adr/README.md"])
def test_every_file_that_a_page_links_to_exists(page: str) -> None:
    text = (ROOT / page).read_text()
    links = [target for target in re.findall(r"\]\(([^)#]+)", text) if "://" not in target]
    missing = [target for target in links if not ((ROOT / page).parent / target).exists()]
    assert not missing


def test_every_function_that_the_architecture_names_stands_in_the_module_beside_it() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    named = re.findall(r"`((?:agent|controller|compression|deploy)/[a-z_/]+\.py)` `(\w+)`", text)
    assert len(named) > 8
    missing = [pair for pair in named if f"def {pair[1]}(" not in (ROOT / pair[0]).read_text()]
    assert not missing
