"""The turn of StarGAN: one translator for all domains, and one discriminator that is asked by class."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import torch
from torch import Tensor

from pipeline.adversarial.coupling import condition_of_batch
from pipeline.adversarial.terms import class_loss
from pipeline.adversarial.translation import ImageBuffer, TranslationTurn
from pipeline.adversarial.turns import Context
from pipeline.data.batches.streams import Batch
from pipeline.nets.conditions import Condition, Judgement
from pipeline.nets.translators import StarTranslator

BUFFER = "buffer"


class StarTurn(TranslationTurn):
    """Images of all domains, each translated to another one by lot, and back (Choi et al., "StarGAN", CVPR 2018).

    Beside the paper's classifier of domains, patches are judged by what class the image is of or was asked to be.
    """

    def __init__(
        self, context: Context, batches: Mapping[str, Batch], trains: tuple[str, ...], noise: float = 0.0
    ) -> None:
        super().__init__(context, batches, trains, noise)
        translator = context.nets["generator"]
        assert isinstance(translator, StarTranslator)
        self.translator = translator

    @cached_property
    def own(self) -> Condition:
        return condition_of_batch(self.batch)

    @cached_property
    def asked(self) -> Condition:
        """The same class at another site, or another class, of which each is as likely."""
        turns = 1 + self.context.draws.randint(self.translator.domains - 1, (len(self.batch.label),))
        return Condition(label=self.translator.elsewhere(self.batch.label, turns))

    @property
    def real(self) -> tuple[Tensor]:
        return (self.batch.images,)

    def _translated(self, images: Tensor, condition: Condition) -> Tensor:
        with torch.set_grad_enabled("generator" in self.trains), self.context.autocast:
            translated: Tensor = self.translator.translator(images, condition)
        return translated.float()

    @cached_property
    def translated(self) -> tuple[Tensor]:
        return (self._translated(self.batch.images, self.asked),)

    @cached_property
    def cycled(self) -> tuple[Tensor]:
        return (self._translated(self.noisy(self.translated[0]), self.own),)

    @cached_property
    def same(self) -> tuple[Tensor]:
        return (self._translated(self.batch.images, self.own),)

    @cached_property
    def real_judgement(self) -> Judgement:
        with torch.set_grad_enabled("discriminator" in self.trains):
            return self.judge(self.augmented(self.batch.images), self.own)

    @cached_property
    def fake_judgement(self) -> Judgement:
        images, condition = self.translated[0], self.asked
        if "discriminator" in self.trains:
            buffer = self.context.states[BUFFER]
            assert isinstance(buffer, ImageBuffer)
            images, label = buffer.exchanged(images, condition.required_label(), self.context.draws)
            condition = Condition(label=label)
        return self.judge(self.augmented(images), condition)

    @property
    def real_logits(self) -> Tensor:
        return self.real_judgement.logits

    @property
    def fake_logits(self) -> Tensor:
        return self.fake_judgement.logits


def class_of_real(turn: StarTurn) -> Tensor:
    """Cross-entropy of the classes of real images (Choi et al. 2018, equation 2)."""
    return class_loss(turn.real_judgement.class_logits, turn.own.label)


def class_of_translated(turn: StarTurn) -> Tensor:
    """Cross-entropy of the classes that translations were asked to be (equation 3)."""
    return class_loss(turn.fake_judgement.class_logits, turn.asked.label)
