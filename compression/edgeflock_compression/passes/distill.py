"""Distillation: a smaller student learns the parent's softened answers (Hinton, Vinyals, Dean 2015, arXiv:1503.02531).

The student is a model file, or the parent's own architecture at a width. Every other pass with fine-tuning can learn
from the parent too: its settings `alpha` and `temperature` are the same.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from edgeflock_compression.channels.width import anew, at_width
from edgeflock_compression.parent.source import Parent, open_parent
from edgeflock_compression.tf_import import keras
from edgeflock_compression.training.fine_tuning import FineTune, fine_tune
from edgeflock_compression.work import Work
from edgeflock_deploy.errors import BadInput


class Settings(FineTune):
    """Settings of the pass: exactly one of `student` and `width`.

    The defaults are for a student that starts from nothing: softened answers ask for larger logits than labels do, so
    they need more steps or larger ones. Dense student of a CNN, 3,200 digits, 4 seeds, mean accuracy with labels alone
    and with these defaults: .935 and .938 after 60 epochs, .935 and .945 after 150.
    """

    epochs: float = Field(60.0, gt=0)
    learning_rate: float = Field(3e-3, gt=0)
    alpha: float = Field(0.7, ge=0, le=1)
    temperature: float = Field(3.0, gt=0)
    student: str | None = None  # a .keras file; trained or not
    width: float | None = Field(None, gt=0, le=1)  # share of each layer's units or filters
    round_to: int = Field(1, ge=1)  # sizes become multiples of this
    fresh: bool = False  # draw the weights of the student in the file anew

    @model_validator(mode="after")
    def _one_student(self) -> Settings:
        if (self.student is None) == (self.width is None):
            raise ValueError("give either 'student', a file, or 'width'")
        return self


def distill(work: Work, settings: Settings) -> Work:
    """Train a student in the place of the model; masks and codebooks begin anew.

    Raises:
        BadInput: the student does not take the parent's inputs or give its outputs, or cannot be made.
        ArithmeticError: the training diverged.
    """
    keras().utils.set_random_seed(work.bench.seed)
    if settings.width is not None:
        student, skipped = at_width(work.model, settings.width, settings.round_to)
    else:
        opened, skipped = _from_file(work, Path(str(settings.student))), ()
        student = anew(opened.model) if settings.fresh else opened.model
        work = work.noting("distill", student_sha256=opened.sha256)
    trained = fine_tune(student, work.bench, settings, {}, "distilling")
    sizes = {"parameters_before": work.model.count_params(), "parameters_after": student.count_params()}
    return replace(work, model=trained.model, masks={}, codebooks={}).noting("distill", **sizes).skipping(*skipped)


def _from_file(work: Work, path: Path) -> Parent:
    student = open_parent(path)
    if student.model is None:
        raise BadInput(str(path), "has no layers to train", "give the student as a .keras file")
    for what, own, wanted in (
        ("takes", _shapes(student.model.inputs), _shapes(work.model.inputs)),
        ("gives", _shapes(student.model.outputs), _shapes(work.model.outputs)),
    ):
        if own != wanted:
            raise BadInput(str(path), f"the student {what} {own}, the model {wanted}", "give a student that fits")
    return student


def _shapes(tensors: Any) -> list[tuple[int | None, ...]]:
    return [tuple(tensor.shape[1:]) for tensor in tensors]
