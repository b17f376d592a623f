"""What the judge costs: a window taken in and looked at, and a decision over a fleet.

`python -m benchmarks.rollout.cost [--devices N]`. The policy is the shipped standard one; every window gives data for
all of its guardrails that a window can speak of, and its numbers scatter as a board's do, so that little of what one
window made of them is of use for the next. Processor time of one core.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time

from benchmarks import table
from edgeflock_controller.rehearsal.boards import window
from edgeflock_deploy.judge import judge
from edgeflock_deploy.judge.evidence import Evidence
from edgeflock_deploy.messages.measurements import Energy
from edgeflock_deploy.messages.windows import Outcomes, VariantWindow, Window
from edgeflock_deploy.policy.policy_file import load_policy
from edgeflock_deploy.unchecked import changed

ROUNDS = 12
ITEMS = 130


def heard(rng: random.Random, device: int, number: int, ratio: float) -> Window:
    """A full window of a device whose candidate takes `ratio` times as long."""
    sides = []
    for factor in (1.0, ratio):
        took = factor * rng.lognormvariate(0, 0.05)
        side = VariantWindow(
            n=ITEMS,
            latency_ms_p50=took,
            latency_ms_p95=2 * took * rng.lognormvariate(0, 0.02),
            accuracy=(ITEMS - rng.randrange(8, 18)) / ITEMS,
            peak_rss_bytes=10_000_000 + 4096 * rng.randrange(20),
            energy=Energy(mj=3.0, net_mj=2.0 * took, method="counter", scope="board_input"),
            outcomes=Outcomes(classes=tuple(rng.randrange(10, 16) for _ in range(10))),
        )
        sides.append(side)
    plain = window(f"d{device:06}", number, 0.0, 0.0)
    return changed(plain, agreement=1 - rng.randrange(4) / ITEMS, old=sides[0], new=sides[1])


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, default=10_000)
    devices = parser.parse_args().devices
    policy, evidence, spent_s, rng = load_policy("standard"), Evidence(), list[float](), random.Random(1)
    for number in range(ROUNDS):
        windows = [heard(rng, device, number, 1.0 - 0.01 * (device % 5)) for device in range(devices)]
        began_s = time.process_time()
        for one in windows:
            evidence = judge.observe(evidence, one, policy)
            judge.found(evidence, policy, devices, devices)
            judge.first_missing(evidence, one.device, policy, devices)
        spent_s.append(time.process_time() - began_s)
    guardrails = len(next(iter(evidence.devices.values())).metrics)
    per_window_us = 1e6 * statistics.median(spent_s) / devices
    for number in range(ROUNDS, ROUNDS + 60):  # one liar, so that the whole fleet is gone through for the strongest
        evidence = judge.observe(evidence, heard(rng, 0, number, 40.0), policy)
    began_s = time.process_time()
    finding = judge.found(evidence, policy, devices, devices)
    decision_s = time.process_time() - began_s
    assert finding.suspect is not None, "the liar is not found, and this measures something else"
    rows = [
        ("a window taken in, the fleet and its device judged", f"{per_window_us:.0f} us"),
        (f"the same, for each of its {guardrails} guardrails", f"{per_window_us / guardrails:.1f} us"),
        (f"a decision over {devices:,} devices, the strongest looked for among them", f"{1e3 * decision_s:.0f} ms"),
    ]
    note = f"Standard policy, {devices:,} devices, {ROUNDS} windows each, the median round; processor time of one core."
    table.write(
        "rollout/judge_cost", f"python -m benchmarks.rollout.cost --devices {devices}", ("what", ""), rows, note
    )


if __name__ == "__main__":
    main()
