"""Semantic consistency of translations: what a frozen classifier says of an image it must say of its translation.

Hoffman et al., "CyCADA: Cycle-Consistent Adversarial Domain Adaptation", ICML 2018, section 3. Cycles and
discriminators let a translator remove a lesion and put it back; a classifier's answer is the cheapest witness. It is
trained on the training images of the translator and on nobody else, before the translator's first step.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from pipeline.adversarial.translation import TranslationTurn
from pipeline.config.augment import AugmentConfig
from pipeline.core.errors import NonFiniteLoss
from pipeline.core.seeds import derive_seed
from pipeline.data.batches.augmentation import Augmenter
from pipeline.data.batches.draws import Draws
from pipeline.data.batches.streams import StoredImages, Stream
from pipeline.nets.classifiers import make_classifier
from pipeline.nets.sizes import ImageShape

JUDGE = "judge"
_BATCH, _LR = 32, 1e-3


class FrozenJudge(nn.Module):
    """A classifier [B, C, *spatial] -> logits [B, classes] that learns once and then stands still, its norms too.

    Args:
        shape: of the translator's images, whose classes are cells of site and class (site after site, classes in one
            order), or sites; `classes_a_site` says how many classes a site has, and 0 that there are two sites.
        steps: of its training, cells equally often in a batch.
    """

    def __init__(self, shape: ImageShape, steps: int) -> None:
        super().__init__()
        self.num_classes, self.steps = shape.classes_a_site or shape.num_classes // 2, steps
        self.net = make_classifier(
            "small_cnn", spatial_dims=shape.spatial_dims, channels=shape.channels, num_classes=self.num_classes
        )  # fmt: skip
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.net(images)
        return logits

    def train(self, mode: bool = True) -> FrozenJudge:
        """Stays in evaluation mode."""
        return super().train(False)

    def learn(self, images: StoredImages, seed: int) -> None:
        """Train on those of `images` whose class is known.

        Raises:
            NonFiniteLoss: the loss became NaN or infinite.
        """
        by_cell = images if images.cell is None else replace(images, label=images.cell)
        told = by_cell.of_classes(range(int(by_cell.label.max()) + 1))
        stream = Stream(told, _BATCH, derive_seed(seed, JUDGE, "order"))
        draws = Draws(torch.Generator(told.device).manual_seed(derive_seed(seed, JUDGE)))
        augment = Augmenter(AugmentConfig())
        self.net.train().requires_grad_(True)
        optimizer = torch.optim.AdamW(self.net.parameters(), lr=_LR, weight_decay=1e-2)
        with torch.random.fork_rng(devices=[told.device] if told.device.type == "cuda" else []):
            torch.manual_seed(derive_seed(seed, JUDGE, "dropout"))
            for _ in range(self.steps):
                batch = stream.next()
                logits = self.net(augment(batch.images, draws))
                loss = torch.nn.functional.cross_entropy(logits, batch.label % self.num_classes)
                if not torch.isfinite(loss):
                    raise NonFiniteLoss("the classifier of gan.semantic: its loss is not finite. Set gan.semantic: 0.")
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
        self.net.eval().requires_grad_(False)


def answers_lost(turn: TranslationTurn) -> Tensor:
    """KL(p(image) || p(translation)) of the judge's answers p, the mean over the batch, summed over the directions."""
    judge = turn.context.states[JUDGE]
    before, after = torch.cat(turn.real).float(), torch.cat(turn.translated)
    with torch.no_grad():
        wanted = judge(before).log_softmax(dim=1)
    lost = torch.nn.functional.kl_div(judge(after).log_softmax(dim=1), wanted, reduction="none", log_target=True)
    return len(turn.real) * lost.sum(dim=1).mean()
