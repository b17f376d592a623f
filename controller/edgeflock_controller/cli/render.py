"""How devices, models and rollouts look on a terminal: tables and sentences from the API's JSON."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any

from rich.box import SIMPLE
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

Json = dict[str, Any]

_WIDE = 200
_NARROW = 120  # below it, sentences stand under a table instead of in it
_WHOLE = frozenset({"id", "phase", "presence", "stage", "state", "status"})  # columns whose words are not broken

_COLOURS = {
    "SUCCEEDED": "green",
    "PASS": "green",
    "PASSED": "green",
    "COMMITTED": "green",
    "online": "green",
    "RUNNING": "cyan",
    "BAKING": "cyan",
    "DEPLOYING": "cyan",
    "TRIAL": "cyan",
    "SCHEDULED": "cyan",
    "WAITING_FOR_APPROVAL": "yellow",
    "PAUSED": "yellow",
    "INCONCLUSIVE": "yellow",
    "ROLLING_BACK": "yellow",
    "REVERTING": "yellow",
    "ROLLED_BACK": "red",
    "FAIL": "red",
    "FAILED": "red",
    "ABORTED": "red",
    "offline": "red",
    "unknown": "yellow",
}


def console() -> Console:
    """A console on stdout; one that is no terminal is wide."""
    # What devices say is shown as it is: a bracket in it is no markup, and a word between colons no emoji.
    made = Console(highlight=False, markup=False, emoji=False)
    return made if made.is_terminal else Console(highlight=False, markup=False, emoji=False, width=_WIDE)


def is_narrow(width: int) -> bool:
    """Whether sentences do not fit beside a table's other columns."""
    return width < _NARROW


def clock(at: float | None) -> str:
    """A time of day here, or a dash."""
    return "-" if at is None else datetime.fromtimestamp(at).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def kilobytes(n: int | None) -> str:
    """Bytes as KB of 1,000 bytes, or a dash."""
    return "-" if n is None else f"{n / 1000:,.1f}"


def duration(seconds: float | None) -> str:
    """A stretch of time as people say it, or a dash."""
    if seconds is None:
        return "-"
    if round(seconds) < 60:
        return f"{seconds:.0f} s"
    if seconds < 600:
        return f"{round(seconds) // 60} min {round(seconds) % 60:02} s"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86_400:.1f} d"


def coloured(word: str) -> Text:
    """A word of state in its colour."""
    return Text(word, style=_COLOURS.get(word, ""))


def print_figures(title: str | None, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print names in the first column and figures in the others; no digit is cut off: a narrow terminal wraps lines."""
    made = Table(box=SIMPLE, title=title, title_justify="left")
    made.add_column(columns[0], no_wrap=True)
    for heading in columns[1:]:
        made.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        made.add_row(*row)
    out = Console()
    natural = out.measure(made, options=out.options.update(max_width=_WIDE)).maximum
    out.width = max(out.width, natural)
    out.print(made)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str | Text]]) -> Table:
    """A table; a column whose name starts with `>` is aligned to the right."""
    made = Table(title=title, title_justify="left", title_style="bold", header_style="bold", box=None, pad_edge=False)
    for name in columns:
        right = name.startswith(">")
        made.add_column(
            name.lstrip(">"), justify="right" if right else "left", overflow="fold", no_wrap=right or name in _WHOLE
        )
    for row in rows:
        made.add_row(*row)
    return made


def devices_table(devices: Iterable[Json], width: int) -> Table:
    """Devices and what they run; on a narrow terminal without their runtimes, which their classes end with."""
    runtime = not is_narrow(width)
    devices = list(devices)
    tagged = any(device["tags"] for device in devices)
    unknown = any(device.get("presence") == "unknown" for device in devices)
    rows: list[list[str | Text]] = []
    for device in devices:
        runs_on = [device["runtime"]] * runtime
        head: list[str | Text] = [device["id"], device["device_class"], *runs_on, _presence(device)]
        head += [clock(device["last_seen"])] if unknown else []
        head += [" ".join(f"{key}={value}" for key, value in device["tags"].items())] * tagged
        for model, said in device["models"].items() or [("-", None)]:
            if said is None:
                rows.append([*head, "-", "-", "-"])
                continue
            runs = said["runs"] or (f"{model}: {said['digest'][:12]}" if said["digest"] else f"{model}: nothing")
            trying = f" (tries {said['tries']})" if said["tries"] else ""
            why = f": {said['reason']}" if said["reason"] else ""
            rows.append([*head, runs + trying, coloured(said["state"]), (said["outcome"] or "-") + why])
            head = [""] * len(head)
    columns = ["id", "class", *["runtime"] * runtime, "presence", *["last heard"] * unknown, *["tags"] * tagged]
    columns += ["runs", "state", "last outcome"]
    return table("Devices", columns, rows)


def not_heard(status: Json, broker: str) -> str | None:
    """That the service hears no device, in one sentence; None while it does."""
    since = status.get("deaf_since")
    if since is None:
        return None
    return f"the service has no link to its broker {broker} since {clock(since)}: what devices said last stands here"


def _presence(device: Json) -> Text:
    """Whether a device is there, to be left alone, or had to drop what nobody heard; a rollout's words say less."""
    said = coloured(device.get("presence") or ("online" if device["online"] else "offline"))
    if device.get("frozen"):
        said.append(", frozen", style="cyan")
    if lost := device.get("windows_dropped", 0) + device.get("events_dropped", 0):
        said.append(f", {lost} lost", style="yellow")
    return said


def models_table(bundles: Iterable[Json], width: int) -> Table:
    """Published bundles; on a narrow terminal without their digests."""
    rows: list[list[str | Text]] = [
        [
            f"{b['model']}@{b['version']}",
            b["variant"],
            kilobytes(b["raw_bytes"]),
            kilobytes(b["wire_bytes"]),
            kilobytes(b["ram_bytes"]),
            "-" if b["accuracy"] is None else f"{b['accuracy']:.4f}",
            "-" if b["agreement"] is None else f"{b['agreement']:.4f}",
            b["digest"][:12],
        ]
        for b in bundles
    ]
    columns = ["model", "variant", ">raw KB", ">wire KB", ">RAM KB", ">accuracy", ">agreement", "digest"]
    shown = slice(-1) if is_narrow(width) else slice(None)
    return table("Published", columns[shown], [row[shown] for row in rows])


def chain_in_words(bundle: Json) -> list[str]:
    """What a published bundle falls back to and what is declared of it, a sentence each."""
    said = [
        f"{form['variant']} ({kilobytes(form['raw_bytes'])} KB raw, {kilobytes(form['wire_bytes'])} on the wire)"
        for form in bundle["fallbacks"]
    ]
    sentences = [f"where it does not fit, {', then '.join(said)}"] if said else []
    p95, memory = bundle["limits"]["latency_ms_p95"], bundle["limits"]["memory_bytes"]
    declared = [] if p95 is None else [f"{p95:g} ms at p95"]
    declared += [] if memory is None else [f"{memory / 1e6:g} MB of memory"]
    return sentences + ([f"declared to take at most {' and '.join(declared)}"] if declared else [])


def target(rollout: Json) -> str:
    """What a rollout brings, e.g. `digits@2 dynamic_wi8`."""
    if rollout["mode"] == "rollback":
        return f"{rollout['model']} back to the previous"
    return f"{rollout['model']}@{rollout['version']} {rollout['variant']}"


def stage(rollout: Json) -> str:
    """The stage a rollout is in, e.g. `2 of 3`."""
    return "-" if rollout["mode"] == "rollback" else f"{rollout['stage'] + 1} of {len(rollout['stages'])}"


def rollouts_table(rollouts: Sequence[Json], width: int) -> Group:
    """Rollouts, one line each; on a narrow terminal, why they are where they are stands below."""
    narrow = is_narrow(width)
    rows: list[list[str | Text]] = []
    for r in rollouts:
        committed = f"{r['devices_committed']}/{r['devices_total']}"
        row = [r["id"], target(r), r["selector"], coloured(r["phase"]), stage(r), committed]
        rows.append(row if narrow else [*row, clock(r["started_at"]), r["reason"]])
    columns = ["id", "brings", "to", "phase", "stage", ">committed"]
    if not narrow:
        return Group(table("Rollouts", [*columns, "started", "why"], rows))
    return Group(table("Rollouts", columns, rows), Text(), *(Text(f"{r['id']}: {r['reason']}") for r in rollouts))


def stage_in_words(stage: Json) -> str:
    """Where one stage is, e.g. `PENDING (up to 4 devices), wants approval`."""
    words = f"{stage['phase']} (up to {devices(stage['target'])})"
    if stage.get("approved_by") is not None:  # a rollout that ended under an older release has no such words
        return f"{words}, approved by {stage['approved_by']}"
    return f"{words}, wants approval" if stage.get("wants_approval") else words


def what_it_waits_for(rollout: Json, now: float) -> Iterator[str]:
    """What holds a rollout for a time, or for a person, in sentences; and the limits of its policy."""
    if rollout["phase"] == "WAITING_FOR_APPROVAL":
        yield f"it waits for somebody's `edgeflock rollouts approve {rollout['id']}`"
    if rollout["phase"] == "SCHEDULED":
        yield f"it starts {_from_now(rollout['start_at'], now)}"
    if rollout["phase"] == "PAUSED" and rollout["resumes_at"] is not None:
        yield f"the next maintenance window opens {_from_now(rollout['resumes_at'], now)}"
    frozen = sorted(name for name, device in rollout["devices"].items() if device.get("frozen"))
    if frozen:
        yield f"frozen: {', '.join(frozen[:20])}" + (f" and {len(frozen) - 20} more" if len(frozen) > 20 else "")
    yield from rollout.get("limits", ())


def _from_now(at: float, now: float) -> str:
    return f"in {duration(at - now)} ({clock(at)})" if at > now else f"now ({clock(at)})"


def rollout_devices_table(rollout: Json, *, hears: bool = True) -> Table:
    """The devices of a rollout; while the service hears nobody, their presence is unknown."""
    rows: list[list[str | Text]] = [
        [
            name,
            device["device_class"],
            _presence(device if hears else device | {"presence": "unknown"}),
            coloured(device["status"]),
            device["state"] or "-",
            (device["reason"] or "-") + (f": {device['detail']}" if device["detail"] else ""),
        ]
        for name, device in rollout["devices"].items()
    ]
    return table("Devices", ["id", "class", "presence", "status", "says", "reason"], rows)


def evidence_table(evidence: Iterable[Json]) -> Table:
    """The evidence under a verdict: how much speaks of harm, and how much of none."""
    rows = [
        [
            row["device"],
            row["metric"] if row["gates"] else f"{row['metric']} (shown only)",
            str(row["windows"]),
            effect(row["metric"], row["effect"]),
            wealth(row["fail_evidence"]),
            wealth(row["pass_evidence"]),
        ]
        for row in evidence
    ]
    columns = ["device", "metric", ">windows", ">new against old", ">of harm", ">of none"]
    return table("Evidence", columns, rows)


def effect(metric: str, value: float | None) -> str:
    """An effect as people read it: a ratio, or points."""
    if value is None:
        return "no data"
    if metric == "accuracy":
        return f"{round(-100 * value, 1) + 0.0:+.1f} points"  # adding 0 turns -0.0 into 0.0
    if metric == "errors":
        return f"{100 * value:+.1f} points"
    shares = {"agreement": "differ", "crashes": "of windows", "drift": "moved"}
    if metric in shares:
        return f"{100 * value:.1f} % {shares[metric]}"
    return f"{value:.2f}x"


def wealth(value: float | None) -> str:
    """Evidence (a wealth): how many times the stake a bettor against the claim has made."""
    if value is None:
        return "-"
    return f"{value:,.2f}" if value < 1e6 else f"{value:.1e}"


def devices(count: int) -> str:
    """A number of devices in words."""
    return f"{count} device{'' if count == 1 else 's'}"


def trial(rollout: Json) -> str | None:
    """What a rollout's evidence was gathered from, in one sentence; None if there is none."""
    seen = rollout["trial"]
    if not seen["windows"]:
        return None
    words = f"{rollout['id']}: {seen['pairs_live']:,} live and {seen['pairs_replayed']:,} replayed pairs"
    unpaired = f", {seen['windows_unpaired']:,} of them unpaired" if seen["windows_unpaired"] else ""
    return f"{words} in {seen['windows']:,} window{'' if seen['windows'] == 1 else 's'}{unpaired}"


def headline(rollout: Json) -> str:
    """A rollout in one sentence."""
    words = f"{rollout['id']}: {target(rollout)}, {rollout['selector']}: {rollout['phase']}"
    if rollout["mode"] == "deploy":
        words += f", {rollout['devices_committed']} of {devices(rollout['devices_total'])} committed"
    return f"{words}. {rollout['reason']}" if rollout["reason"] else f"{words}."
