"""A trial in which both variants serve, from outside: an application, a policy file, the words of `why`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.system.conftest import Site

BOARDS = ("board-1",)


def test_both_variants_answer_in_turns_until_the_commit_and_the_application_meets_no_error(
    site: Site, model: str
) -> None:
    first = site.install(model)
    second = site.publish(model, padding=os.urandom(300_000), variant="tiny_padded")
    policy = Path(site.policy(by_answers=True))
    policy.write_text(policy.read_text().replace("[trial]", '[trial]\nmode = "serving"\nblock_requests = 4'))
    with site.application(BOARDS[0], model) as application:
        to = ("--to", "all", "--policy", str(policy), "--wait")
        assert "SUCCEEDED" in site.command("deploy", f"{model}@2", "--variant", second.variant, *to)
    assert application.failures == []
    assert (application.story[0], application.story[-1]) == (first.digest, second.digest)
    assert len(application.story) > 4
    assert set(application.story) == {first.digest, second.digest}
    rollout = site.told("rollouts")[-1]
    trial = rollout["trial"]
    assert trial["pairs_live"] > 0
    assert trial["pairs_replayed"] > 0
    assert trial["windows_unpaired"] == 0
    words = site.command("why", rollout["id"])
    assert f"{trial['pairs_live']:,} live and {trial['pairs_replayed']:,} replayed pairs" in words
    assert "service_ms_p50 (shown only)" in words
