"""What a variant answered, counted in fixed bins: what drift is seen by where nobody knows the right answer.

Decided here: the bins. A class has a bin of its own while the model has no more than 64; the classes of a larger model
are hashed into 64 (multiplicatively, Knuth, The Art of Computer Programming 3, 6.4), so that a change of the mix shows
although no bin names a class. Confidence is counted in tenths. A regression's answer is counted by the mean of its
values, in twenty bins between the smallest and the largest target of the evaluation slice; both variants have the same
slice open, hence the same bins. A window's counts take less than 1 KB for both variants together.
"""

from __future__ import annotations

from edgeflock_agent.children.runner import ItemResult, ModelProcess, Slice
from edgeflock_deploy.messages.windows import Outcomes

CLASS_BINS = 64
CONFIDENCE_BINS = 10
VALUE_BINS = 20
_HASH = 2654435769  # 2^32 / the golden ratio
_HASH_SHIFT = 32 - 6  # 64 bins


def class_bin(answer: int, classes: int) -> int:
    """The bin of a class of a model with so many classes."""
    return answer if classes <= CLASS_BINS else (answer * _HASH & 0xFFFFFFFF) >> _HASH_SHIFT


def even_bin(value: float, low: float, high: float, bins: int) -> int:
    """The bin of a value among equally wide ones from low to high; the first and the last take what lies outside."""
    if not high > low:
        return 0 if value <= low else bins - 1
    share = (value - low) / (high - low)
    return min(bins - 1, max(0, int(min(max(share, 0.0), 1.0) * bins)))


class OutcomeCounts:
    """Counts the answers of one variant in one window.

    Args:
        task: the open slice, which says what an answer is.
        process: the variant; the number of its classes is the size of its first output.
    """

    def __init__(self, task: Slice, process: ModelProcess) -> None:
        self._task, self._classes_in_all = task, process.first_values
        self._classes, self._confidence, self._values = [0] * CLASS_BINS, [0] * CONFIDENCE_BINS, [0] * VALUE_BINS

    def add(self, result: ItemResult) -> None:
        """Count one answer; -1, a class of scores that hold NaN, is none."""
        answer = result.answer
        if isinstance(answer, int):
            if answer >= 0:
                self._classes[class_bin(answer, self._classes_in_all)] += 1
            if result.confidence is not None:
                self._confidence[even_bin(result.confidence, 0.0, 1.0, CONFIDENCE_BINS)] += 1
        elif answer and self._task.answer_range is not None:
            mean = sum(answer) / len(answer)
            if mean == mean:  # inf - inf is no number
                self._values[even_bin(mean, *self._task.answer_range, VALUE_BINS)] += 1

    def counted(self) -> Outcomes:
        """The counts so far."""
        if self._task.kind == "classification":
            return Outcomes(classes=_short(self._classes), confidence=_short(self._confidence))
        low, high = self._task.answer_range or (None, None)
        return Outcomes(values=_short(self._values), low=low, high=high)


def _short(counts: list[int]) -> tuple[int, ...]:
    last = max((number for number, count in enumerate(counts) if count), default=-1)
    return tuple(counts[: last + 1])
