"""The one supervised loop: classifiers and encoders alike are trained here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

from pipeline.core.errors import NonFiniteLoss


def minimise(
    loss_at: Callable[[int], Tensor | Iterator[Tensor]],
    parameters: Iterable[nn.Parameter],
    *,
    steps: int,
    lr: float,
    weight_decay: float,
    what: str,
) -> None:
    """AdamW with a one-cycle learning rate for `steps` steps; no early stopping.

    Args:
        loss_at: number of the step, from 0 on -> the loss of its batch, a scalar in float32; or losses of parts of it
            that add up to it: each is made, and its way back gone, before the next.
        parameters: what is trained.
        lr: the highest learning rate of the cycle.
        what: is trained, for the error.

    Raises:
        NonFiniteLoss: the loss became NaN or infinite; the weights of the step before are untouched.
    """
    weights = list(parameters)
    optimizer = torch.optim.AdamW(weights, lr=lr, weight_decay=weight_decay, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=lr, total_steps=steps + 1, cycle_momentum=False)
    for step in range(steps):
        optimizer.zero_grad(set_to_none=True)
        losses = loss_at(step)
        for loss in (losses,) if isinstance(losses, Tensor) else losses:
            if not torch.isfinite(loss):
                raise NonFiniteLoss(
                    f"the loss of {what} became {loss.item()} at step {step}. {_suspect(weights)} Set "
                    "compute.precision: float32; where it is that already, lower the learning rate."
                )
            loss.backward()
        optimizer.step()
        schedule.step()


def _suspect(weights: Sequence[Tensor]) -> str:
    """What the weights can tell about a loss that is not finite."""
    if all(bool(torch.isfinite(weight).all()) for weight in weights):
        return "The weights are finite, so an image of this step is not, or a sum went past what the precision holds."
    return "Weights were no longer finite, so the gradient of an earlier step was not."
