from __future__ import annotations

from edgeflock_deploy.reasons import Reason

# What blames a variant and yet says nothing about whether it fits a board: another form would be no better.
NOT_OF_A_FORM = {
    Reason.SIGNATURE_INVALID,
    Reason.MANIFEST_INVALID,
    Reason.BLOB_HASH_MISMATCH,
    Reason.KNOWN_BAD,
    Reason.CRASH_LOOP,  # counted over the agent's starts, and decided by the machine
}


def test_whatever_blames_a_variant_while_it_warms_lets_the_next_form_of_its_bundle_try() -> None:
    assert {reason for reason in Reason if reason.blames_variant} - NOT_OF_A_FORM == {
        reason for reason in Reason if reason.does_not_fit
    }
