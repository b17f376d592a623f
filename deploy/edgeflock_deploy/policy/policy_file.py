"""Reading a policy from a TOML file: a shipped one by its name, or the user's own by its path.

What a policy means stands in `rules`; this file only knows files, keys and how to say what is wrong with them. An
unknown key is refused at every level, because a misspelt guardrail would otherwise guard nothing.
"""

from __future__ import annotations

import sys
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from edgeflock_deploy.errors import BadInput
from edgeflock_deploy.messages.orders import TrialSettings
from edgeflock_deploy.policy.limits import Halt, MaintenanceWindow, Rate
from edgeflock_deploy.policy.rules import Guardrail, Policy, Stage

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_TABLES: dict[str, type[BaseModel]] = {
    "trial": TrialSettings,
    "stage": Stage,
    "guardrail": Guardrail,
    "window": MaintenanceWindow,
    "rate": Rate,
    "halt": Halt,
}


def shipped_policies() -> tuple[str, ...]:
    """The names of the policies that come with the product, sorted."""
    folder = resources.files("edgeflock_deploy") / "policies"
    return tuple(sorted(file.name[: -len(".toml")] for file in folder.iterdir() if file.name.endswith(".toml")))


def shipped_text(name: str) -> str:
    """A shipped policy as it is written, comments included.

    Raises:
        BadInput: no policy of this name is shipped.
    """
    if name not in shipped_policies():
        raise BadInput(f"policy {name}", "is none that comes with the product", _shipped())
    return (resources.files("edgeflock_deploy") / "policies" / f"{name}.toml").read_text("utf-8")


def policy_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a policy file: keys, types and bounds; not the rules that span several keys."""
    schema = Policy.model_json_schema(by_alias=True)
    schema["required"] = [key for key in schema["required"] if key != "name"]  # else it is called after its file
    schema["$defs"]["TrialSettings"]["additionalProperties"] = False  # a message may have more keys, a policy may not
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def load_policy(name_or_path: str) -> Policy:
    """Read a policy. A shipped name wins over a file of that name in the current folder; write ./NAME for the file.

    Raises:
        BadInput: there is no such policy or file, it is not TOML, or a key or value is wrong.
    """
    text = shipped_text(name_or_path) if name_or_path in shipped_policies() else _read(name_or_path)
    return parse_policy(text, name_or_path)


def parse_policy(text: str, source: str) -> Policy:
    """Read a policy from TOML text; without a `name` it is called after its file.

    Args:
        text: the TOML text.
        source: the file or name to blame in errors.

    Raises:
        BadInput: not TOML, or a key or value is wrong.
    """
    raw = toml_values(text, source)
    _refuse_unknown_keys(raw, Policy, source, "the policy")
    for table, model in _TABLES.items():
        entries = raw.get(table, [])
        for number, entry in enumerate(entries if isinstance(entries, list) else [entries], 1):
            if isinstance(entry, dict):
                where = f"[[{table}]] {number}" if isinstance(entries, list) else f"[{table}]"
                _refuse_unknown_keys(entry, model, source, where)
    raw.setdefault("name", Path(source).stem)
    try:
        return Policy.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part + 1) if isinstance(part, int) else part for part in first["loc"])
        wrong = first["msg"].removeprefix("Value error, ")
        raise BadInput(f"policy {source}", f"{where or 'it'}: {wrong}", "correct it and try again") from None


def toml_values(text: str, source: str) -> dict[str, Any]:
    """The tables of a policy as they are written.

    Raises:
        BadInput: not TOML.
    """
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadInput(f"policy {source}", f"not TOML: {error}", "see the shipped policies for the form") from None


def _read(path: str) -> str:
    try:
        return Path(path).read_text("utf-8")
    except FileNotFoundError:
        raise BadInput(f"policy {path}", "no such policy or file", _shipped()) from None
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"policy {path}", f"cannot be read: {error}", "give a TOML file") from None


def _shipped() -> str:
    return f"shipped policies: {', '.join(shipped_policies())}"


def _refuse_unknown_keys(entry: dict[str, Any], model: type[BaseModel], source: str, where: str) -> None:
    known = [field.alias or name for name, field in model.model_fields.items()]
    for key in entry:
        if key not in known:
            raise BadInput(
                f"policy {source}", f"unknown key {key!r} in {where}", f"keys that exist there: {', '.join(known)}"
            )
