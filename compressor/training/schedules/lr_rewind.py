"""The last part of the original training once more (learning-rate rewinding; Renda, Frankle & Carbin, ICLR 2020)."""

from __future__ import annotations

from compressor.training.schedules.base import Schedule

MILESTONES = (0.5, 0.75)


class Rewind(Schedule):
    """Goes back as many epochs as there are, in a training whose rate fell to a tenth half-way and at three quarters.

    `finetune.original_epochs` says how long that training was. A short training thus stays at a hundredth of the rate.
    """

    name = "lr_rewind"

    def factor(self, step: int, steps: int) -> float:
        """The factor at the same distance from the end of the original training."""
        place = 1.0 - self.cut.budget * (1.0 - step / steps)
        return float(0.1 ** sum(place >= milestone for milestone in MILESTONES))
