"""The messages on the wire: frozen, versioned, one discriminated union.

Unknown fields are accepted (a newer peer may send them), unknown kinds decode to `Unknown` (log and drop), malformed
bytes raise `Malformed` (dead-letter). Names carry their unit last. Nothing here knows a clock, a network or a disk.

Version history: 1, the first; since then the kind `capture` and, each with a default: `Desired.signed_at` and
`captures_wanted`; `Reported.windows_dropped`, `events_dropped`, `nan_answers`, `tags` and `utc_offset_s`;
`ReportedModel.variant`, `candidate_variant` and `tried`; `TrialSettings.mode` `serving`, `live_share`,
`block_requests`, `block_s` and `energy`; `Window.mode` and `live_pairs`, and of each variant its service times,
`outcomes`, `crashes` and times end to end; `Measurement.end_to_end_ms_p50` and `end_to_end_ms_p95`, its
`involuntary_switches` and `conditions`; `Conditions.governor`; `Desired.measure` and `Reported.measured`, apart from
`models`, so that an older agent, which does not know them, goes on as ever.
"""
