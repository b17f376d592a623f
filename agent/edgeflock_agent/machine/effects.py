"""What is to be done for a model, as values. The doing is in the agent's own `effects`."""

from __future__ import annotations

from dataclasses import dataclass

from edgeflock_agent.machine.state import ModelState


@dataclass(frozen=True)
class StopWork:
    """Stop whatever is done for the candidate, and close its process."""


@dataclass(frozen=True)
class FetchManifest:
    """Get the manifest and check it; answers ManifestReady, Refused or DownloadFailed."""

    digest: str


@dataclass(frozen=True)
class FetchBlobs:
    """Get the chunks of the form in hand that are not on the disk; answers BlobsReady, Refused or DownloadFailed."""

    digest: str


@dataclass(frozen=True)
class Verify:
    """Decode the containers and check every hash; answers Verified, Refused or DownloadFailed."""

    digest: str


@dataclass(frozen=True)
class AskTurn:
    """Queue for the bench; answers TurnCame."""

    digest: str


@dataclass(frozen=True)
class Warm:
    """Load, check and measure the candidate; answers Warmed or HardStopped."""

    digest: str


@dataclass(frozen=True)
class Gauge:
    """Load, check and measure a bundle that is measured and nothing more; answers Gauged or HardStopped."""

    digest: str


@dataclass(frozen=True)
class RunTrial:
    """Close windows of incumbent against candidate, one after the other, until StopWork or Switch."""

    digest: str


@dataclass(frozen=True)
class Load:
    """Load a bundle of a slot, in the form in hand, so that it can serve; answers Loaded or ServingStopped."""

    digest: str


@dataclass(frozen=True)
class Repair:
    """Bring the files of a bundle in again, beside all else; answers Repaired, or nothing."""

    digest: str


@dataclass(frozen=True)
class Switch:
    """Let this bundle's process answer from the next request on; None: nothing answers."""

    digest: str | None


@dataclass(frozen=True)
class Persist:
    """Make the state durable before anything after it in the list is done."""


@dataclass(frozen=True)
class CollectGarbage:
    """Remove files that no slot and no candidate needs."""


@dataclass(frozen=True)
class Report:
    """Tell the controller how the model stands; `of` is a moment that the next state already overtook."""

    of: ModelState | None = None


Effect = (
    StopWork
    | FetchManifest
    | FetchBlobs
    | Verify
    | AskTurn
    | Warm
    | Gauge
    | RunTrial
    | Load
    | Repair
    | Switch
    | Persist
    | CollectGarbage
    | Report
)
