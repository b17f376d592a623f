"""Does a model that was damaged before it was signed harm anything but itself?

10,000 damaged copies of five small models (dense, convolutional, int8, int4, several inputs of several types) are
loaded, checked against the whole model's golden cases and run: in forks of a process that has the runtime loaded,
within the limits of an agent's child (`forked_trials`). A sample of every outcome, with more of those that crash or
hang, then goes the way of an agent, a child process each (`ModelProcess.start`, `check_golden`); some of those go as
signed bundles over a broker through one real agent, which must live, keep the incumbent answering, and give a reason
of the same kind.

A mutant has a number and is made again from it: `mutant(seed, number)`.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from benchmarks import table
from benchmarks.device import agent_of_mutants, forked_trials, mutations
from benchmarks.device.forked_trials import CRASHED, HUNG, OUTCOMES, RIGHT, Trial
from edgeflock_agent.children import child
from edgeflock_agent.children.child_process import ChildProcess

FOLDER = Path("build/bench/mutants")
DATA = Path(__file__).parents[2] / "tests" / "data"
MODELS = ("tiny", "tiny_slow", "tiny_int8", "tiny_int4", "tiny_mixed")
COUNT, SEED = 10_000, 1
SAMPLE, DANGEROUS, AGENTS = 30, 60, 20


class Mutant(NamedTuple):
    """A damaged model: its number, which model it was, the kind of damage."""

    number: int
    model: str
    kind: str
    data: bytes


def mutant(seed: int, number: int) -> Mutant:
    """The mutant of this number."""
    rng = random.Random(f"{seed}-{number}")
    model = MODELS[number % len(MODELS)]
    files = {name: (DATA / f"{name}.tflite").read_bytes() for name in MODELS}
    kind, data = mutations.mutate(files[model], [files[name] for name in MODELS if name != model], rng)
    return Mutant(number, model, kind, data)


def in_forks(seed: int, count: int) -> list[tuple[str, str, Trial]]:
    """Each mutant's model, kind of damage and how it did; made in a process of its own, from which forks are cheap."""
    command = [sys.executable, "-m", "benchmarks.device.mutated_models", "--forks", "--seed", str(seed)]
    # A pool of threads would not survive the forks.
    env = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run([*command, "--count", str(count)], env=env, stdout=subprocess.PIPE, check=True)
    return [(model, kind, Trial(*trial)) for model, kind, trial in json.loads(done.stdout)]


def print_forks(seed: int, count: int) -> None:
    """The process in which `in_forks` has it done."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    golden = forked_trials.golden_files(DATA, MODELS, FOLDER)
    child.rehearse()
    path, found = FOLDER / f"mutant-{os.getpid()}.tflite", []
    for number in range(count):
        one = mutant(seed, number)
        path.write_bytes(one.data)
        found.append((one.model, one.kind, forked_trials.tried(path, golden[one.model], forked_trials.forked)))
    path.unlink(missing_ok=True)
    json.dump(found, sys.stdout)


def sample(found: list[tuple[str, str, Trial]], each: int, dangerous: int) -> list[int]:
    """Numbers of some mutants of every outcome; of those that crash and hang more."""
    chosen: list[int] = []
    for outcome in OUTCOMES:
        numbers = [number for number, (_, _, trial) in enumerate(found) if trial.outcome == outcome]
        random.Random(0).shuffle(numbers)
        chosen += numbers[: dangerous if outcome in (CRASHED, HUNG) else each]
    return sorted(chosen)


def in_processes(seed: int, numbers: Iterable[int]) -> dict[int, Trial]:
    """How mutants do in child processes of their own."""
    golden = forked_trials.golden_files(DATA, MODELS, FOLDER)
    found = {}
    for number in numbers:
        one = mutant(seed, number)
        path = FOLDER / f"alone-{os.getpid()}.tflite"
        path.write_bytes(one.data)
        found[number] = forked_trials.tried(path, golden[one.model], ChildProcess.start)
        path.unlink()
    return found


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=COUNT)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--forks", action="store_true", help="only the forks, as JSON")
    asked = parser.parse_args()
    if asked.forks:
        print_forks(asked.seed, asked.count)
        return
    began = time.monotonic()
    found = in_forks(asked.seed, asked.count)
    forks_s = time.monotonic() - began
    alone = in_processes(asked.seed, sample(found, SAMPLE, DANGEROUS))
    picked = agent_of_mutants.chosen({number: found[number][0] for number in alone}, alone, AGENTS)
    told = agent_of_mutants.deploy({number: mutant(asked.seed, number) for number in picked}, FOLDER / "agent")
    write(asked.seed, found, alone, told, forks_s)


def write(
    seed: int,
    found: list[tuple[str, str, Trial]],
    alone: dict[int, Trial],
    told: agent_of_mutants.Told,
    forks_s: float,
) -> None:
    """The table: a row per kind of damage, then what processes and the agent made of the sample."""
    kinds = sorted({kind for _, kind, _ in found})
    counts = Counter((kind, trial.outcome) for _, kind, trial in found)
    rows: list[tuple[object, ...]] = [
        (kind, sum(counts[kind, outcome] for outcome in OUTCOMES), *(counts[kind, outcome] for outcome in OUTCOMES))
        for kind in kinds
    ]
    every = Counter(trial.outcome for _, _, trial in found)
    rows.append(("all, in forks", len(found), *(every[outcome] for outcome in OUTCOMES)))
    real = Counter(trial.outcome for trial in alone.values())
    rows.append(("of these in processes", len(alone), *(real[outcome] for outcome in OUTCOMES)))
    through = Counter(trial.outcome for trial in told.trials.values())
    rows.append(("of these through an agent", len(told.trials), *(through[outcome] for outcome in OUTCOMES)))
    same = sum(found[number][2].outcome == trial.outcome for number, trial in alone.items())
    agreed = sum(alone[number].outcome == trial.outcome for number, trial in told.trials.items())
    crashes = [trial.detail for _, _, trial in found if trial.outcome == CRASHED]
    signals = Counter((re.findall(r"SIG[A-Z]+", detail) or [detail])[0] for detail in crashes)
    note = (
        f"Seed {seed}; {forks_s:.0f} s for the forks. Deaths of the agent: {told.deaths}; requests that the incumbent "
        f"did not answer: {told.unanswered}, of {told.asked}. A process came to the outcome of the fork in {same} of "
        f"{len(alone)}, the agent to that of the process in {agreed} of {len(told.trials)}; what reads beyond its "
        f"memory finds other bytes in another process. Crashes in forks by "
        f"{', '.join(f'{name}: {count}' for name, count in signals.most_common()) or 'nothing'}. "
        f"Limits: {forked_trials.BUDGET_BYTES >> 20} MiB of memory beyond the runtime's, "
        f"{forked_trials.TIMEOUT_S:g} s an answer, and the child's sandbox; the agent's own limits where it is one. "
        f"`{RIGHT}`: the damage lay "
        "where the golden cases and a few random inputs do not look, for example in a description."
    )
    header = ("damage", "models", *OUTCOMES)
    table.write("device/mutated_models", "make bench ARGS=mutated_models", header, rows, note)


if __name__ == "__main__":
    main()
