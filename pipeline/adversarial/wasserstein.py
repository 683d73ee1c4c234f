"""The turn of Wasserstein families: it logs the estimate of the distance, the curve that tells of convergence."""

from __future__ import annotations

from torch import Tensor

from pipeline.adversarial.turns import NoiseTurn


class WassersteinTurn(NoiseTurn):
    """A noise turn whose critic's mean difference is logged (Arjovsky et al., "Wasserstein GAN", ICML 2017)."""

    def figures(self) -> dict[str, Tensor]:
        """`NoiseTurn`'s, and `wasserstein_estimate`: mean D(real) - mean D(fake), up to the Lipschitz bound."""
        figures = super().figures()
        if not figures:
            return {}
        return figures | {"wasserstein_estimate": figures["real_logits"] - figures["fake_logits"]}
