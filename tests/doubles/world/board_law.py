"""The law on a board, held by somebody who sees its disk, which processes run and what it says, and nothing else.

What gets a blob's name has its hash, however it came; a delta is chosen only over a base that lies there whole. A form
that does not fit a board is set aside for its own reason, is not tried on applications' inputs, never serves, and ends
nothing as long as another form fits; the report names the form that runs and those that were set aside. Kept inputs
take no more than their ring, none of a nearly full disk, and are what applications asked with. No fault of our own ends
an update, and no full disk that was not full.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeflock_deploy.canonical import sha256_hex
from edgeflock_deploy.captured import Captured
from edgeflock_deploy.reasons import Reason
from world.bundles import MODEL, Published

if TYPE_CHECKING:
    from world.board import Board

_BLOCK_BYTES = 4096
_LEFT_FREE_BYTES = 4 << 20
_RING_BYTES = 30 * _BLOCK_BYTES
_DEATHS_THAT_SET_ASIDE = 3


class BoardLaw:
    """Looks on.

    Args:
        published: what there is.
        unfit: by board, which forms do not fit it, and why.
        against: is told what is against the law.
        note: is told what is seen, and of whom.
    """

    def __init__(
        self,
        published: Published,
        unfit: Mapping[str, Mapping[str, Reason]],
        against: Callable[[str], None],
        note: Callable[[str, str], None],
    ) -> None:
        self._published, self._unfit, self._against, self._note = published, unfit, against, note
        self._set_aside: dict[str, list[tuple[str, str]]] = defaultdict(list)
        self._loaded: dict[str, set[str]] = defaultdict(set)
        self._asked: dict[str, set[bytes]] = defaultdict(set)
        self.ever_full: set[str] = set()

    # --- its disk -----------------------------------------------------------------------------------------------------

    def named(self, board: Board, path: Path) -> None:
        """A file has got its name."""
        if path.parent.name == "blobs" and sha256_hex(path.read_bytes()) != path.name:
            self._against(f"{board.name} has other bytes under the name of blob {path.name[:12]}")
        if path.parent.name == "captures":
            self.kept(board.name, path.parent)
            if board.disk is not None and board.disk.room_bytes < _LEFT_FREE_BYTES:
                self._against(f"{board.name} keeps an input on a disk with {board.disk.room_bytes} bytes left")

    def kept(self, board: str, folder: Path) -> None:
        """A board keeps these inputs, after one more or after a boot."""
        files = folder.iterdir() if folder.is_dir() else ()
        taken = sum(-(-file.stat().st_size // _BLOCK_BYTES) * _BLOCK_BYTES for file in files)
        if taken > _RING_BYTES:
            self._against(f"the inputs that {board} keeps take {taken} bytes, {_RING_BYTES} are theirs")

    def chose(self, board: str, base: Path, sha256: str) -> None:
        """A board is to take a delta to this base."""
        if not base.exists() or sha256_hex(base.read_bytes()) != sha256:
            self._against(f"{board} chooses a delta to {sha256[:12]}, which it has not")

    # --- what runs ----------------------------------------------------------------------------------------------------

    def loads(self, board: str, variant: str) -> None:
        """A form is started."""
        self._loaded[board].add(variant)

    def tries(self, board: str, variant: str) -> None:
        """A form runs beside what serves, on applications' inputs."""
        if variant in self._unfit[board]:
            self._against(f"{board} tries {variant}, which does not fit it ({self._unfit[board][variant].value})")

    def looked(self, board: Board) -> None:
        """A board has done something."""
        serving = board.agent.serving.get(MODEL) if board.agent is not None else None
        variant = getattr(serving.process, "variant", "") if serving is not None else ""
        if variant in self._unfit[board.name]:
            self._against(f"{board.name} serves {variant}, which does not fit it")

    # --- what it says -------------------------------------------------------------------------------------------------

    def reported(self, board: str, boot: int, said: Mapping[str, Any], ordered: str | None) -> None:
        """A board's newest word of the model; `ordered` is the digest of the order that it answers."""
        unfit, reason = self._unfit[board], said["reason"]
        if reason == Reason.INTERNAL.value:
            self._against(f"{board} met a fault of ours: {said['detail']}")
        if reason == Reason.DISK_FULL.value and board not in self.ever_full:
            self._against(f"{board} finds its disk full, which it never was")
        if reason == Reason.BLOB_HASH_MISMATCH.value and not self._published.lies:
            self._against(f"{board} blames a bundle for bytes that it was published with: {said['detail']}")
        if said["digest"] is not None and said["variant"] not in (None, *self._loaded[board]):
            self._against(f"{board} says that it runs {said['variant']}, which it never loaded")
        set_aside = [(one["variant"], one["reason"]) for one in said["tried"]]
        for variant, why in set_aside:
            if (variant, why) not in self._set_aside[board] and len(self._published.bundles[1].manifest.variants) > 1:
                self._note(board, f"sets {variant} aside: {why}")
        self._set_aside[board] = set_aside
        for one in said["tried"]:
            died = one["reason"] == Reason.CRASH_LOOP.value and boot >= _DEATHS_THAT_SET_ASIDE
            if not died and one["reason"] != getattr(unfit.get(one["variant"]), "value", None):
                self._against(f"{board} has set {one['variant']} aside for {one['reason']}, which it does not show")
            if one["variant"] == said["candidate_variant"]:
                self._against(f"{board} has set {one['variant']} aside, and tries it")
        chain = self._published.variants[ordered].variants if ordered is not None else ()
        died = any(one["reason"] == Reason.CRASH_LOOP.value for one in said["tried"])
        fitting = [variant for variant in chain if variant not in unfit]
        if said["outcome"] == "FAILED" and fitting and not died and reason in {why.value for why in unfit.values()}:
            self._against(f"{board} ends with {reason}, though {fitting[0]} fits it")

    # --- what it keeps ------------------------------------------------------------------------------------------------

    def asked(self, board: str, data: bytes) -> None:
        """An application has asked with this input."""
        self._asked[board].add(data)

    def came(self, board: Board, parcel: bytes, kept: list[Captured]) -> list[str]:
        """What is wrong with what headquarters got of a board's inputs."""
        if sum(len(one.as_bytes()) + 4 for one in kept) != len(parcel):
            return [f"not all that {board.name} sent of its inputs can be read"]
        strange = [one for one in kept if one.about.model != MODEL or one.data[0] not in self._asked[board.name]]
        return [f"{board.name} sends inputs that no application asked with"] if strange else []
