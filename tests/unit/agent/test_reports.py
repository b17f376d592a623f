from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgeflock_agent.device import Identity
from edgeflock_agent.machine.state import BundleFacts, ModelState
from edgeflock_agent.outbox import SETTLED_S, Outbox
from edgeflock_agent.reports import Reporter
from edgeflock_agent.sent_again import MAX_EVENTS, MAX_WINDOWS
from edgeflock_agent.storage.backlog import Backlog
from edgeflock_agent.storage.disk import Disk
from edgeflock_agent.storage.download import Traffic
from edgeflock_agent.trial.window import WindowSides
from edgeflock_deploy.messages.measurements import Conditions, Measurement
from edgeflock_deploy.messages.reports import AgentEvent, Reported
from edgeflock_deploy.messages.values import DeviceState
from edgeflock_deploy.messages.windows import VariantWindow, Window
from edgeflock_deploy.messages.wire import decode_up

SIDES = WindowSides(1.0, 130, VariantWindow(n=130), VariantWindow(n=130), 1.0, Conditions())


class Published(list[Any]):
    connected = True

    def publish(
        self, topic: str, payload: bytes, *, retain: bool = False, done: Callable[[], None] | None = None
    ) -> None:
        self.append(decode_up(payload))
        if done is not None:
            done()


IDENTITY = Identity(device="a", device_class="c", runtime="none", boot_id="boot", broker="mqtt://h:1")


def reporter(link: Published, folder: Path = Path("/dev/null/none"), identity: Identity = IDENTITY) -> Reporter:
    now_s = [0.0]
    outbox = Outbox("a", link, Backlog(folder, Disk()), lambda: now_s[0])
    outbox.connected()
    now_s[0] = SETTLED_S
    return Reporter(link, outbox, identity, Traffic(), lambda: 1, beat_s=3.0)


def windows(link: Published) -> list[tuple[str, int]]:
    return [(m.rollout, m.number) for m in link if isinstance(m, Window)]


def test_windows_are_numbered_by_rollout() -> None:
    link = Published()
    reports = reporter(link)
    for rollout in ("r1", "r1", "r2"):
        reports.window(ModelState(model="m"), rollout, "old", "new", SIDES)
    assert windows(link) == [("r1", 0), ("r1", 1), ("r2", 0)]


def test_windows_of_a_running_rollout_are_sent_again_as_they_were_and_others_are_forgotten() -> None:
    link = Published()
    reports = reporter(link)
    for rollout in ("r1", "r2", "r2"):
        reports.window(ModelState(model="m"), rollout, "old", "new", SIDES)
    first = list(link)
    link.clear()
    reports.send_again({"r2"})
    assert link == first[1:]
    link.clear()
    reports.send_again({"r1", "r2"})
    assert windows(link) == [("r2", 0), ("r2", 1)]


def test_an_incumbent_that_did_not_run_is_shown_by_what_it_took_when_it_was_warmed() -> None:
    link = Published()
    warmed = Measurement(
        n=260, latency_ms_p50=2.0, latency_ms_p90=2.5, latency_ms_p95=3.0, first_inference_ms=9.0, load_ms=1.0,
        warmed_up=True, peak_rss_bytes=7,
    )  # fmt: skip
    state = ModelState(model="m", bundles={"old": BundleFacts(version=1, measurement=warmed)})
    alone = SIDES._replace(old=VariantWindow(n=0), pairs=0, agreement=None, mode="alone", paired=False)
    reporter(link).window(state, "r", "old", "new", alone)
    (window,) = link
    assert (window.paired, window.mode) == (False, "alone")
    assert (window.old.n, window.old.latency_ms_p50, window.old.peak_rss_bytes) == (260, 2.0, 7)
    assert (window.new.n, window.new.peak_rss_bytes) == (130, None)


def events(link: Published) -> list[int]:
    return [m.seq for m in link if isinstance(m, AgentEvent)]


def test_events_that_a_headquarters_away_may_not_have_heard_are_sent_again_as_they_were_in_its_next_two_sessions() -> (
    None
):
    link = Published()
    reports = reporter(link)
    before = ModelState(model="m")
    reports.transition(before, before.but(state=DeviceState.DOWNLOADING), 1.0)
    first = list(link)
    for _ in range(2):
        link.clear()
        reports.send_again(())
        assert link == first
    link.clear()
    reports.transition(before, before.but(state=DeviceState.DOWNLOADING), 2.0)
    sent = events(link)
    link.clear()
    reports.send_again(())
    assert events(link) == sent


def test_only_so_many_events_are_kept() -> None:
    link = Published()
    reports = reporter(link)
    for at in range(MAX_EVENTS + 5):
        reports.transition(ModelState(model="m"), ModelState(model="m"), float(at))
    sent = events(link)
    link.clear()
    reports.send_again(())
    assert events(link) == sent[5:]


def test_only_so_many_windows_are_kept() -> None:
    link = Published()
    reports = reporter(link)
    for _ in range(MAX_WINDOWS + 5):
        reports.window(ModelState(model="m"), "r", "old", "new", SIDES)
    link.clear()
    reports.send_again({"r"})
    assert windows(link) == [("r", number) for number in range(5, MAX_WINDOWS + 5)]


def test_a_report_says_how_soon_the_next_one_comes() -> None:
    link = Published()
    reporter(link).reported({}, {})
    assert [m.beat_s for m in link if isinstance(m, Reported)] == [3.0]


def test_a_report_says_the_boards_own_tags_and_its_local_time() -> None:
    link = Published()
    identity = Identity("a", "c", "none", "boot", "mqtt://h:1", tags=(("site", "roof"),))
    reports = reporter(link, identity=identity)
    offsets_s = iter([3600, 7200])  # a change to summer time
    reports.utc_offset_s = lambda: next(offsets_s)
    for _ in range(2):
        reports.reported({}, {})
    said = [m for m in link if isinstance(m, Reported)]
    assert [(m.tags, m.utc_offset_s) for m in said] == [({"site": "roof"}, 3600), ({"site": "roof"}, 7200)]


def test_a_report_says_how_many_windows_were_lost_for_want_of_room(tmp_path: Path) -> None:
    link = Published()
    (tmp_path / "backlog").write_text("a file in the way of the folder")
    reports = reporter(link, tmp_path / "backlog")
    link.connected = False
    reports.window(ModelState(model="m"), "r", "old", "new", SIDES)
    link.connected = True
    reports.reported({}, {})
    assert [(m.windows_dropped, m.events_dropped) for m in link] == [(1, 0)]


def test_a_window_says_how_often_the_incumbent_was_restarted_since_the_one_before() -> None:
    link = Published()
    reports = reporter(link)
    for restarts_s in ((1.0,), (1.0, 5.0, 6.0), (6.0,), ()):
        reports.window(ModelState(model="m").but(restarts_s=restarts_s), "r1", "old", "new", SIDES)
    sent = [message for message in link if isinstance(message, Window)]
    assert [(window.old.crashes, window.new.crashes) for window in sent] == [(0, 0), (2, 0), (0, 0), (0, 0)]
