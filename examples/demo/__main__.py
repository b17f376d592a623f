"""The whole thread of Edgeflock on one machine: train, compress, publish, deploy, promote, take two bad ones back.

Nothing here is simulated: TensorFlow trains and converts, a real broker carries, each agent is a process with a state
folder of its own, and every step is a command that can be typed by hand; each is printed before it runs.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from fleet import CLASSES, Fleet, Stopped
from rich.console import Console
from rich.table import Table

from edgeflock_controller.client import Client

HERE = Path(__file__).resolve().parent
ROLLOUTS = (  # what is deployed, under which policy, and how it must end
    ("float32", "install", "SUCCEEDED"),
    ("dynamic_wi8", "demo", "SUCCEEDED"),
    ("static_wi8_ai16", "demo", "ROLLED_BACK"),
    ("three_levels_wi8", "demo", "ROLLED_BACK"),
)
GOOD = "dynamic_wi8"


def main() -> int:
    """Run the demo; 0 only if every rollout ended as it must and every agent runs the good variant."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--devices", type=int, default=5, help="how many agents to start (default 5)")
    parser.add_argument("--keep", action="store_true", help="leave everything up at the end, until Ctrl-C")
    parser.add_argument("--out", type=Path, default=Path("build/demo"), help="where everything is written")
    arguments = parser.parse_args()
    if arguments.devices < 3:
        parser.error("--devices: the stages 1 -> 2 -> all need at least 3 devices")
    console = Console(highlight=False)
    out = arguments.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    try:
        with Fleet(out, console) as fleet:
            ok = tell(fleet, arguments.devices, out, console)
            if arguments.keep:
                linger(fleet, console)
        return 0 if ok else 1
    except Stopped as stopped:
        console.print(f"[red]the demo stopped:[/] {stopped}")
        return 1
    except KeyboardInterrupt:
        console.print("interrupted; everything it started is stopped")
        return 130


def tell(fleet: Fleet, devices: int, out: Path, console: Console) -> bool:
    """Play the story; returns whether it ended as it must."""
    chapter(console, "A model: LeNet-5 on 5,000 handwritten digits")
    variants = make_variants(fleet, out)

    chapter(console, f"A fleet: a broker, the controller, {devices} agents in two device classes")
    start(fleet, devices)

    chapter(console, "Four signed bundles")
    for folder in dict.fromkeys(variant.parent for variant in variants):
        fleet.run("publish", str(folder), "--model", "digits", "--version", "1")

    rollouts = []
    for variant, policy, expected in ROLLOUTS:
        chapter(
            console, {"float32": "The first incumbent: nothing to compare with yet"}.get(variant, f"Deploy {variant}")
        )
        rollouts.append(deploy(fleet, variant, policy) | {"expected": expected})

    good = rollouts[1]["digest"]
    with contextlib.suppress(Stopped):  # the report says who does not run it
        fleet.wait_for(f"every agent back on {GOOD}", lambda: set(fleet.running_digests("digits").values()) == {good})
    running = [
        {"id": d["id"], "device_class": d["device_class"], "running_digest": d["models"]["digits"]["digest"]}
        for d in fleet.ask(Client.devices) or []
    ]
    report = {
        "variants": [
            {key: variant[key] for key in ("name", "raw_bytes", "wire_bytes", "accuracy", "agreement")}
            for variant in (json.loads((folder / "variant.json").read_text()) for folder in variants)
        ],
        "devices": running,
        "rollouts": [
            {key: r[key] for key in ("name", "outcome", "stage", "reason", "devices_reached", "duration_s")}
            for r in rollouts
        ],
        "broker": fleet.broker_url,
    }
    (out / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    show(report, console)
    ok = all(r["outcome"] == r["expected"] for r in rollouts) and all(d["running_digest"] == good for d in running)
    console.print(
        f"\n{'[green]as it must be[/]' if ok else '[red]not as it must be[/]'}: "
        f"{sum(d['running_digest'] == good for d in running)} of {len(running)} agents run {GOOD}; "
        f"the report is {out / 'report.json'}"
    )
    return ok


def start(fleet: Fleet, devices: int) -> None:
    """Start the broker, the controller and the agents, and wait until all are online."""
    fleet.run("keys", "init")
    fleet.start_broker()
    fleet.start_controller()
    for number in range(devices):
        fleet.start_agent(f"board-{number + 1:02d}", CLASSES[number % len(CLASSES)])
    fleet.wait_for("every agent online", lambda: fleet.online() == devices)
    fleet.run("devices")


def make_variants(fleet: Fleet, out: Path) -> list[Path]:
    """Train and compress, once: what is there already, and was made by the same sources, is used again."""
    model, variants, wrong = out / "model", out / "variants", out / "wrong"
    sources = [HERE / name for name in ("lenet.py", "three_levels.py", "three_levels_wi8.toml")]
    stamp, made_of = out / "variants.stamp", "".join(source.read_text() for source in sources)
    folders = [*(variants / variant for variant, _, _ in ROLLOUTS[:3]), wrong / ROLLOUTS[3][0]]
    if stamp.exists() and stamp.read_text() == made_of and all((f / "variant.json").exists() for f in folders):
        fleet.console.print(f"trained and compressed already: {out}")
        return folders
    for folder in (variants, wrong):
        shutil.rmtree(folder, ignore_errors=True)
    fleet.run_script(HERE / "lenet.py", str(model))
    fleet.run_script(HERE / "three_levels.py", str(model / "lenet.keras"), str(model / "three_levels.keras"))
    data = str(model / "data.npz")
    recipes = [word for variant, _, _ in ROLLOUTS[:3] for word in ("--recipe", variant)]
    fleet.run("compress", str(model / "lenet.keras"), "--data", data, *recipes, "--out", str(variants))
    recipe = str(HERE / "three_levels_wi8.toml")
    fleet.run("compress", str(model / "three_levels.keras"), "--data", data, "--recipe", recipe, "--out", str(wrong))
    stamp.write_text(made_of)
    return folders


def deploy(fleet: Fleet, variant: str, policy: str) -> dict[str, Any]:
    """Roll one variant out to all, wait for the end, and return what became of it."""
    before = time.monotonic()
    fleet.run(
        "deploy", "digits@1", "--variant", variant, "--to", "all", "--policy", policy, "--wait", must_succeed=False
    )
    rollout = fleet.latest_rollout()
    return {
        "name": variant,
        "digest": rollout["digest"],
        "outcome": rollout["phase"],
        "stage": rollout["stage"] + 1,  # people count from 1
        "reason": rollout["reason"],
        "devices_reached": rollout["devices_reached"],
        "duration_s": round(time.monotonic() - before, 1),
    }


def chapter(console: Console, title: str) -> None:
    """Announce what comes next."""
    console.print()
    console.rule(f"[bold]{title}", align="left")


def show(report: dict[str, Any], console: Console) -> None:
    """The two tables at the end."""
    chapter(console, "What became of it")
    variants = Table(
        "variant", "raw bytes", "wire bytes", "accuracy", "agreement", title="variants", title_justify="left"
    )
    for v in report["variants"]:
        variants.add_row(
            v["name"], f"{v['raw_bytes']:,}", f"{v['wire_bytes']:,}", f"{v['accuracy']:.3f}", f"{v['agreement']:.3f}"
        )
    console.print(variants)
    rollouts = Table("rollout", "outcome", "stage", "devices", "seconds", title="rollouts", title_justify="left")
    for r in report["rollouts"]:
        rollouts.add_row(r["name"], r["outcome"], str(r["stage"]), str(r["devices_reached"]), f"{r['duration_s']}")
    console.print(rollouts)
    for r in report["rollouts"]:
        console.print(f"[bold]{r['name']}[/]: {r['reason']}")


def linger(fleet: Fleet, console: Console) -> None:
    """Leave everything up until Ctrl-C, and say how to use it."""
    console.print(f"\nEverything is still up. In another terminal:\n\n  export EDGEFLOCK_HOME={fleet.home}")
    for words in ("devices", "watch", "rollouts", "why r4", "rollback digits --to class=class-a"):
        console.print(f"  {Path(sys.executable).parent / 'edgeflock'} {words}")
    console.print("\nCtrl-C here ends it.")
    while True:
        fleet.check_alive()
        time.sleep(1)


if __name__ == "__main__":
    sys.exit(main())
