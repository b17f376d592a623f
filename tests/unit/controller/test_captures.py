from __future__ import annotations

import base64
from typing import Any

import pytest

from edgeflock_controller.store import Store
from edgeflock_deploy.messages.reports import CAPTURE_PIECE_BYTES, CapturePiece
from edgeflock_deploy.messages.wire import Malformed

PARCEL = bytes(range(256)) * 600


def piece(place: int, **changed: Any) -> CapturePiece:
    data = PARCEL[place * CAPTURE_PIECE_BYTES : (place + 1) * CAPTURE_PIECE_BYTES]
    said = {"model": "m", "token": "t1", "number": place, "pieces": 3, "data": base64.b64encode(data).decode()}
    return CapturePiece(**({"device": "pi", "boot_id": "b", "seq": 1} | said | changed))


def test_an_asking_is_wanted_until_every_piece_has_come_in_whatever_order(store: Store) -> None:
    captures = store.captures
    captures.want("pi", "m", "t1")
    for number in (2, 0, 2, 0):
        assert not captures.take(piece(number))
        assert captures.wanted("pi") == {"m": "t1"}
    assert captures.take(piece(1))
    assert captures.wanted("pi") == {}
    assert captures.parcel("pi", "m") == PARCEL
    assert not captures.take(piece(1))


def test_what_nobody_asked_for_is_not_stored(store: Store) -> None:
    captures = store.captures
    assert not captures.take(piece(0))
    captures.want("pi", "m", "t1")
    for other in ({"token": "t2"}, {"model": "n"}, {"device": "other"}, {"token": "../../x"}):
        assert not captures.take(piece(0, **other))
    asking = captures.asking("pi", "m")
    assert asking is not None
    assert asking["have"] == 0
    assert not (store.folder / "captures").exists()


@pytest.mark.parametrize("changed", [{"number": 3}, {"data": "?"}, {"data": "AAAA"}, {"pieces": 1}])
def test_a_piece_that_contradicts_itself_or_the_others_is_malformed(store: Store, changed: dict[str, Any]) -> None:
    store.captures.want("pi", "m", "t1")
    store.captures.take(piece(2))
    with pytest.raises(Malformed):
        store.captures.take(piece(0, **changed))
    assert store.captures.wanted("pi") == {"m": "t1"}


def test_a_refusal_answers_an_asking_and_a_new_asking_forgets_the_one_before(store: Store) -> None:
    captures = store.captures
    captures.want("pi", "m", "t1")
    captures.take(piece(0))
    captures.want("pi", "m", "t2")
    assert not (store.folder / "captures" / "t1").exists()
    assert not captures.take(piece(0))
    assert captures.take(piece(0, token="t2", refused="no", data=""))
    asking = captures.asking("pi", "m")
    assert asking is not None
    assert (asking["refused"], asking["done"], captures.parcel("pi", "m")) == ("no", True, b"")


def test_askings_outlive_the_service(store: Store) -> None:
    store.captures.want("pi", "m", "t1")
    store.captures.take(piece(0))
    again = Store(store.folder)
    assert again.captures.wanted("pi") == {"m": "t1"}
    again.captures.take(piece(1))
    assert again.captures.take(piece(2))
    assert again.captures.parcel("pi", "m") == PARCEL
    again.close()
