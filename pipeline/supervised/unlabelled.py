"""Training nets on images whose labels nobody reads, and what a variational autoencoder's training minimises."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

from pipeline.core.compute import Hardware, autocast, place
from pipeline.core.seeds import derive_seed
from pipeline.data.batches.draws import Draws
from pipeline.data.batches.streams import StoredImages, Stream
from pipeline.nets.autoencoders import Autoencoder
from pipeline.supervised.loop import minimise

Net = TypeVar("Net", bound=nn.Module)
_WEIGHT_DECAY = 1e-5
_NOISE = 0.1
"""Standard deviation of a voxel's value about the decoder's, in units of [-1, 1]: it weighs the residual against KL."""
Loss = Callable[[Tensor, Draws], Tensor]
"""(images [B, C, *spatial] in [-1, 1] on the device, random numbers) -> a scalar in float32."""


def fit_unlabelled(
    images: StoredImages,
    nets: nn.Module,
    loss: Loss,
    hardware: Hardware,
    *,
    steps: int,
    batch_size: int,
    seed: int,
    what: str,
    lr: float = 1e-3,
) -> None:
    """Train `nets` in place for `steps` batches; leaves them on the CPU, in evaluation mode.

    Args:
        batch_size: at most; where there are fewer images, all of them.
        what: is trained, for the error.

    Raises:
        NonFiniteLoss: the loss became NaN or infinite.
    """
    size = min(batch_size, len(images.label))
    stream = Stream(images, size, derive_seed(seed, "order"), balanced=False)
    fit_batches(lambda: stream.next().images, nets, loss, hardware, steps=steps, seed=seed, what=what, lr=lr)


def fit_batches(
    next_batch: Callable[[], Tensor],
    nets: nn.Module,
    loss: Loss,
    hardware: Hardware,
    *,
    steps: int,
    seed: int,
    what: str,
    lr: float = 1e-3,
) -> None:
    """As `fit_unlabelled`, with batches from wherever they come: on the device, whatever their shape."""
    draws = Draws(torch.Generator(hardware.device).manual_seed(derive_seed(seed, "draws")))
    place(nets, hardware).train()

    def loss_at(_: int) -> Tensor:
        batch = next_batch()
        with autocast(hardware):
            return loss(batch, draws).float()

    trained = [weight for weight in nets.parameters() if weight.requires_grad]
    minimise(loss_at, trained, steps=steps, lr=lr, weight_decay=_WEIGHT_DECAY, what=what)
    at_rest(nets)


def at_rest(net: Net) -> Net:
    """The net on the CPU, in evaluation mode, its weights laid out as they come back from a file: sums in one order."""
    net.eval().cpu()
    for weight in net.parameters():
        weight.data = weight.data.contiguous()
    return net


def evidence_loss(net: Autoencoder, images: Tensor, draws: Draws) -> Tensor:
    """What a variational autoencoder's training minimises: the mean of `minus_evidence` with one drawn code an image.

    Args:
        net: with `spread`.
        images: [B, C, *spatial] in [-1, 1].
    """
    mean, log_variance = net.encoder(images).float().chunk(2, dim=1)
    code = mean + torch.exp(0.5 * log_variance) * draws.randn(mean.shape)
    return minus_evidence(images, net.decoder(code).float(), mean, log_variance).mean()


def minus_evidence(images: Tensor, decoded: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """Minus the evidence lower bound a voxel without its constants, [B] (Kingma & Welling, ICLR 2014).

    Args:
        images, decoded: [B, C, *spatial] in [-1, 1].
        mean, log_variance: of the code, [B, numbers].
    """
    residual = (decoded - images).square().flatten(1).sum(dim=1) / (2 * _NOISE**2)
    return (residual + divergence(mean, log_variance)) / images[0].numel()


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL divergence of normal distributions [B, numbers] from the standard one, summed over the numbers: [B]."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(dim=1)
