from __future__ import annotations

import errno
import json
import os
import socket
from pathlib import Path

import pytest

from edgeflock_controller.broker import EmbeddedBroker
from edgeflock_deploy.errors import BadInput


def test_a_broker_listens_on_loopback_and_is_adopted_by_the_next_one_who_asks(tmp_path: Path) -> None:
    broker = EmbeddedBroker.start(tmp_path, dies_with_parent=True)
    try:
        assert f'listen = "127.0.0.1:{broker.port}"' in (tmp_path / "broker.toml").read_text()
        again = EmbeddedBroker.start(tmp_path)
        assert (again.adopted, again.pid, again.url) == (True, broker.pid, broker.url)
    finally:
        broker.stop()
    assert not broker.alive


def test_a_new_broker_comes_back_at_the_port_that_devices_know(tmp_path: Path) -> None:
    first = EmbeddedBroker.start(tmp_path, dies_with_parent=True)
    first.stop()
    second = EmbeddedBroker.start(tmp_path, dies_with_parent=True)
    second.stop()
    assert second.url == first.url
    assert not second.adopted


def test_a_reused_pid_is_not_taken_for_the_broker(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        url = f"mqtt://127.0.0.1:{other.getsockname()[1]}"
        record = {"v": 1, "pid": os.getpid(), "pid_started": 1, "url": url}
        (tmp_path / "broker.json").write_text(json.dumps(record))
        broker = EmbeddedBroker.start(tmp_path, dies_with_parent=True)
        try:
            assert broker.pid != os.getpid()
            assert broker.url != url
        finally:
            broker.stop()


def test_a_port_that_is_taken_is_refused(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(BadInput, match="is taken"):
        EmbeddedBroker.start(tmp_path, other.getsockname()[1])


def test_a_broker_of_which_no_record_can_be_written_is_not_left_behind(tmp_path: Path) -> None:
    (tmp_path / "broker.new").mkdir()  # where the record is written first: the disk refuses it, as a full one does
    with pytest.raises(IsADirectoryError):
        EmbeddedBroker.start(tmp_path, dies_with_parent=True)
    port = int((tmp_path / "broker.toml").read_text().partition('listen = "127.0.0.1:')[2].partition('"')[0])
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED
