"""Tags of a device: `site=roof`, words that a person gave it, by which selectors and rates name it. Spelling only.

A key is 1-32 letters, digits, '.', '-' and '_', a value 1-64 of these, '/', ':', '@' and '+': neither needs quoting in
a selector, a shell or a unit file. A device may carry MOST tags.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from edgeflock_deploy.errors import BadInput

MOST = 32
_KEY = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,31}")
_VALUE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@+-]{0,63}")


def parse_tags(texts: Iterable[str]) -> dict[str, str]:
    """Read tags written KEY=VALUE.

    Raises:
        BadInput: one is not of that form, a key comes twice, or there are too many.
    """
    tags: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals:
            raise BadInput(f"tag {text!r}", "is not KEY=VALUE", "write for example site=roof")
        check_key(key)
        if not _VALUE.fullmatch(value):
            mend = "use 1-64 letters, digits, '.', '-', '_', '/', ':', '@' and '+', starting with a letter or digit"
            raise BadInput(f"tag {text!r}", f"has a value that a selector cannot name ({value!r})", mend)
        if tags.get(key, value) != value:
            raise BadInput(f"tag {key}", "is given twice", "give each key one value")
        tags[key] = value
    if len(tags) > MOST:
        raise BadInput("tags", f"are {len(tags)}, and a device carries {MOST} at most", "give fewer")
    return tags


def check_key(key: str) -> str:
    """Return the key if it can be one.

    Raises:
        BadInput: it cannot.
    """
    if not _KEY.fullmatch(key):
        mend = "use 1-32 letters, digits, '.', '-' and '_', starting with a letter"
        raise BadInput(f"tag {key!r}", "has a key that a selector cannot name", mend)
    return key


def readable(declared: Mapping[str, str]) -> dict[str, str]:
    """Those of a board's own tags that can be tags; what a board says is not believed to be well formed."""
    good = {key: value for key, value in declared.items() if _KEY.fullmatch(key) and _VALUE.fullmatch(value)}
    return dict(sorted(good.items())[:MOST])
