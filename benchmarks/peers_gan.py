"""Our GAN step, MONAI's `GanTrainer` and the bare nets on the same nets, images and optimisers.

What `GanTrainer` (MONAI 1.6) does otherwise than we do, in a step of one move each:

- the same passes: two of the generator forward, one back; three of the discriminator forward (real, fake, fake), each
  back. But its fakes for the discriminator's move carry a graph, and in the generator's move it computes the
  discriminator's weight gradients too, which nobody uses;
- it keeps no running mean of the generator, reads both losses back from the device, and looks for no NaN;
- it augments real images only (random transforms of the data set, image by image, on the CPU); we augment real and fake
  images alike, in both moves, with gradients.

`usual` is what MONAI's defaults and its GAN tutorial give: MetaTensors, decollating, plain Adam. `careful` leaves those
out and has convolutions in channels-last order, as we have. Both have cached images, and detach the fakes in the
discriminator's loss.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from pipeline.adversarial.assembly import assemble
from pipeline.adversarial.families.sngan import SnganConfig
from pipeline.adversarial.loop import GanTraining, train
from pipeline.core.compute import Hardware, autocast
from pipeline.data.batches.scaling import Scaling
from pipeline.data.batches.streams import StoredImages
from pipeline.nets.conditions import Condition
from pipeline.nets.sizes import ImageShape

CLASSES, IMAGES = 3, 256
Net = nn.Module


def images_of(shape: tuple[int, ...], device: str) -> StoredImages:
    """Noise, 8 bits deep, the classes in turn."""
    random = torch.Generator().manual_seed(0)
    stored = torch.randint(0, 256, (IMAGES, 1, *shape), generator=random, dtype=torch.uint8)
    label = torch.arange(IMAGES) % CLASSES
    return StoredImages(stored.to(device), label.to(device), Scaling(1.0, 0.0, "none", (0.0, 255.0), "uint8"))


def training_of(config: SnganConfig, images: StoredImages, hardware: Hardware, augment: bool) -> GanTraining:
    shape = ImageShape(tuple(images.stored.shape[2:]), 1, CLASSES)
    fixed = config.model_copy(update={"augment_probability": float(augment), "num_images": 10**9})
    return assemble(fixed, images, shape, hardware, seed=0)


def our_steps(training: GanTraining, steps: int) -> Callable[[], None]:
    return lambda: train(training, training.num_images + steps * training.images_per_step, lambda _: None)


def bare_steps(
    training: GanTraining, images: StoredImages, hardware: Hardware, batch: int, steps: int
) -> Callable[[], object]:
    """Forward and backward of both moves on fixed tensors; nothing is drawn, stepped, averaged or looked at."""
    generator, discriminator = (copy.deepcopy(training.context.nets[name]) for name in ("generator", "discriminator"))
    real = images.batch(torch.arange(batch, device=images.label.device))
    condition = Condition(label=real.label)
    z = torch.randn(batch, generator.latent_dim, device=real.images.device)  # type: ignore[arg-type]

    def step() -> None:
        discriminator.requires_grad_(True)
        with parametrize.cached(), autocast(hardware):
            with torch.no_grad():
                fake = generator(z, condition).float()
            logits = [discriminator(seen, condition).logits.float() for seen in (real.images, fake)]
            (torch.relu(1 - logits[0]).mean() + torch.relu(1 + logits[1]).mean()).backward()
        discriminator.requires_grad_(False)
        with parametrize.cached(), autocast(hardware):
            fake = generator(z, condition).float()
            (-discriminator(fake, condition).logits.float().mean()).backward()
        for weight in (*generator.parameters(), *discriminator.parameters()):
            weight.grad = None

    return lambda: [step() for _ in range(steps)]


def their_steps(
    training: GanTraining, images: StoredImages, config: SnganConfig, steps: int, augment: bool, careful: bool
) -> Callable[[], None]:
    """`GanTrainer` on copies of the nets of `training`, over a CacheDataset and a DataLoader in this process."""
    from monai.data import CacheDataset, DataLoader, set_track_meta
    from monai.engines import GanTrainer

    set_track_meta(not careful)
    generator, discriminator = (copy.deepcopy(training.context.nets[name]) for name in ("generator", "discriminator"))
    if not careful:
        for weight in (*generator.parameters(), *discriminator.parameters()):
            weight.data = weight.data.contiguous()
    both = images.batch(torch.arange(len(images.label), device=images.label.device))
    data = [{"image": one.cpu(), "label": label.cpu()} for one, label in zip(both.images, both.label, strict=True)]
    dataset = CacheDataset(data, their_transforms(config, images.stored.shape[2:], augment), progress=False)
    loader = DataLoader(dataset, batch_size=config.batch_size, shuffle=True, drop_last=True, num_workers=0)
    device = images.stored.device
    asked = torch.arange(config.batch_size, device=device) % CLASSES

    def reals(batch: Mapping[str, Tensor], where: torch.device, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        return batch["image"].to(where), batch["label"].to(where)

    def latents(num_latents: int, latent_size: int, device: torch.device, **_: Any) -> Tensor:
        return torch.randn(num_latents, latent_size, device=device)

    def generate(z: Tensor, network: Net, *_: Any, **__: Any) -> Tensor:
        made: Tensor = network(z, Condition(label=asked))
        return made

    def judge(fake: Tensor, real: tuple[Tensor, Tensor]) -> Tensor:
        found = discriminator(real[0], Condition(label=real[1])).logits
        made = discriminator(fake.detach(), Condition(label=asked)).logits
        return torch.relu(1 - found).mean() + torch.relu(1 + made).mean()

    def please(fake: Tensor) -> Tensor:
        wished: Tensor = -discriminator(fake, Condition(label=asked)).logits.mean()
        return wished

    trainer = GanTrainer(
        device, 0, loader, generator, adam(generator, config.generator_lr, careful), please,
        discriminator, adam(discriminator, config.discriminator_lr, careful), judge,
        epoch_length=steps, g_inferer=generate, d_prepare_batch=reals, g_prepare_batch=latents,
        latent_shape=config.latent_dim, decollate=not careful, optim_set_to_none=careful,
    )  # fmt: skip

    def run() -> None:
        set_track_meta(not careful)
        trainer.state.max_epochs += 1
        trainer.run()

    return run


def adam(net: Net, rate: float, fused: bool) -> torch.optim.Optimizer:
    return torch.optim.Adam(net.parameters(), lr=rate, betas=(0.0, 0.9), fused=fused)


def their_transforms(config: SnganConfig, sides: tuple[int, ...], augment: bool) -> Any:
    """MONAI's per-image counterparts of our default policy: shift, contrast, brightness, cutout."""
    from monai.transforms import (
        Compose,
        EnsureTyped,
        RandAffined,
        RandCoarseDropoutd,
        RandScaleIntensityFixedMeand,
        RandShiftIntensityd,
    )

    policy = config.augment
    if not augment:
        return Compose([EnsureTyped("image")])
    if policy.rotate_degrees or policy.scale or policy.noise or policy.gamma or policy.flip:
        raise SystemExit("the default policy has changed: give MONAI its counterpart here")
    reach = [math.floor(policy.shift * side) for side in sides]
    holes = [max(1, round(policy.cutout * side)) for side in sides]
    return Compose([
        EnsureTyped("image"),
        RandAffined("image", prob=1, translate_range=reach, mode="nearest", padding_mode="reflection", cache_grid=True,
                    spatial_size=tuple(sides)),
        RandScaleIntensityFixedMeand("image", factors=policy.contrast, prob=1),
        RandShiftIntensityd("image", offsets=policy.brightness, prob=1),
        RandCoarseDropoutd("image", holes=1, spatial_size=holes, fill_value=-1, prob=1),
    ])  # fmt: skip
