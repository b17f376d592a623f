"""What a rollout of a variant per class was given: for each device class the variant, and the table that it came from.

Values only; they travel in `Started`, so that the journal explains a choice. How one is made stands at headquarters.
"""

from __future__ import annotations

from pydantic import Field

from edgeflock_deploy.messages.values import Frozen


class MetricValue(Frozen):
    """One metric of one variant on one class, in the metric's own unit: the worst board's, and the range over all runs.

    None with a reason (`why`) where it is not known.
    """

    value: float | None = None
    low: float | None = None
    high: float | None = None
    why: str | None = None


class ChoiceRow(Frozen):
    """One variant as boards of one class measured it.

    `on_front`: no other variant is as good in every metric of the choice and better in one. `meets`: every requirement
    holds. `why` says why the variant is out, or what should be known of its numbers.
    """

    variant: str
    digest: str
    boards: tuple[str, ...] = ()
    values: dict[str, MetricValue] = Field(default_factory=dict)
    on_front: bool = False
    meets: bool = False
    why: str | None = None


class ClassChoice(Frozen):
    """What devices of one class get; a class without a digest is held. `why` is a sentence either way.

    `reference` says what `accuracy_drop` is counted from, and on which items.
    """

    variant: str | None = None
    digest: str | None = None
    why: str
    reference: str | None = None
    rows: tuple[ChoiceRow, ...] = ()


class Choice(Frozen):
    """The choice of a rollout: what was wanted, in the operator's words, and what each class gets for it."""

    objective: str
    require: str = ""
    campaign: str | None = None
    classes: dict[str, ClassChoice] = Field(default_factory=dict)

    def digest_for(self, device_class: str) -> str | None:
        """The bundle that devices of a class get; None: the class is held."""
        chosen = self.classes.get(device_class)
        return chosen.digest if chosen is not None else None

    def why_held(self, device_class: str) -> str:
        """Why a class gets nothing, in words."""
        chosen = self.classes.get(device_class)
        why = chosen.why if chosen is not None else "it was never measured"
        return f"class {device_class} is held: {why}"

    def with_classes(self, classes: dict[str, ClassChoice]) -> Choice:
        """The same choice with what has been chosen since."""
        return self.model_copy(update={"classes": self.classes | classes})
