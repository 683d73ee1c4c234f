"""Progressive growing: when each level comes, and what keeps a Wasserstein discriminator near zero."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from pipeline.adversarial.recipe import ScheduledTraining
from pipeline.adversarial.turns import NoiseTurn
from pipeline.nets.growing import Growing


@dataclass(frozen=True)
class Growth:
    """The schedule of Karras et al. (ICLR 2018): sets `growth` of all growing nets before every step.

    Attributes:
        growing: share of the training after which the nets are at full size.
    """

    growing: float

    def __call__(self, training: ScheduledTraining) -> None:
        progress = training.num_images / training.total_images
        for net in training.context.nets.values():
            for module in net.modules():
                if isinstance(module, Growing):
                    module.growth.fill_(grown(progress, self.growing, module.levels))


def grown(progress: float, growing: float, levels: int) -> float:
    """Growth, 0 to `levels`, at `progress` (0 to 1) of a training that grows for its first share `growing`.

    Growing has 2 · `levels` equally long parts: each level but the last stays as it is for one part, then the next is
    faded in for one part. A net that does not grow (`growing` = 0) is at full size from the beginning.
    """
    if progress >= growing:
        return float(levels)
    level, part = divmod(progress / growing * 2 * levels, 2)
    return level + max(0.0, part - 1)


def drift(turn: NoiseTurn) -> Tensor:
    """mean D(real)²: with a small weight it keeps logits from wandering off (Karras et al. 2018, appendix A.1)."""
    return turn.real_logits.square().mean()
