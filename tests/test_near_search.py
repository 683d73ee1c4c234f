"""Near copies among many images: the search among likely pairs finds what the search over all pairs finds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from clouds import CPU, clouds, stored

from pipeline.measures.ms_ssim import ssim
from pipeline.privacy import likeness_net, near_search
from pipeline.privacy.near_search import NearSearch
from pipeline.privacy.registered import (
    products_a_pair,
    registered_candidates,
    registered_distances,
    registered_ssim,
    standardised,
)


def test_candidates_have_the_distances_of_all_pairs() -> None:
    queries, known = (torch.from_numpy(clouds(number, number)) for number in (5, 9))
    asked = np.random.default_rng(0).integers(0, 9, (5, 4))
    whole = registered_distances([queries], [known])
    np.testing.assert_allclose(
        registered_candidates(queries, known, asked), np.take_along_axis(whole, asked, axis=1), atol=1e-5
    )


def test_registered_ssim_undoes_flips_shifts_and_contrast() -> None:
    """The second image is the first one, mirrored, shifted by a pixel and paler; the third is another one."""
    one, other = torch.from_numpy(clouds(2, 3))[:, None]
    same = 0.5 * torch.roll(one.flip(-1), 1, dims=-1) + 0.2
    images = torch.cat([one, same, other])
    alike, apart = registered_ssim(images, torch.tensor([0, 0]), torch.tensor([1, 2]))
    assert alike > 0.99 > 0.6 > apart
    assert ssim(images[:1], images[1:2]) < 0.5  # as they are
    np.testing.assert_allclose(standardised(same), standardised(torch.roll(one.flip(-1), 1, dims=-1)), atol=1e-4)


@pytest.fixture(scope="module")
def net() -> likeness_net.LikenessNet:
    """Trained on 240 images and blends of them: pairs of every likeness."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(likeness_net, "_STEPS", 80)
        known, other = clouds(240, 0), clouds(240, 8)
        blends = np.concatenate([known, 0.7 * known + 0.3 * other])
        return likeness_net.fit_likeness_net(torch.from_numpy(blends), CPU, 0)


def test_copies_are_found_among_candidates(monkeypatch: pytest.MonkeyPatch, net: likeness_net.LikenessNet) -> None:
    """Of 240 known images 20 are shown shifted, paler and with noise, among 20 that nobody knows."""
    monkeypatch.setattr(near_search, "fit_likeness_net", lambda *_: net)
    monkeypatch.setattr(near_search, "CANDIDATES", 24)
    monkeypatch.setattr(near_search, "_FEW_CANDIDATES", 0.0)
    known, held_out = clouds(240, 0), clouds(40, 1)
    noise = 0.02 * np.random.default_rng(2).standard_normal((20, 1, 16, 16))
    copies = 0.8 * np.roll(known[:20], 1, axis=-2) + noise
    sets = [stored(one) for one in (np.concatenate([copies, clouds(20, 5)]), known, held_out)]
    shown, *others = sets
    exact, likely = (NearSearch(*others, len(shown), CPU, 0, exact_work=most) for most in (1e13, 0))
    exact, likely = ((one.among_known(shown), one.usual) for one in (exact, likely))
    np.testing.assert_array_equal(exact[0].which[:20], np.arange(20))
    assert (likely[0].which[:20] == np.arange(20)).mean() >= 0.9
    assert np.median(likely[0].distance[:20]) < 0.5 < likely[0].distance[20:].min()
    assert np.median(likely[1].distance) == pytest.approx(1, abs=0.1)


def test_the_net_is_taught_the_likeness_of_pairs(net: likeness_net.LikenessNet) -> None:
    """Cosines of unseen pairs go with their registered SSIM, which the net has never been shown."""
    fresh, more = torch.from_numpy(clouds(60, 9)), torch.from_numpy(clouds(60, 10))
    share = torch.linspace(0, 1, 60).reshape(-1, 1, 1, 1)
    pairs = torch.cat([fresh, (1 - share) * fresh + share * more])
    seen = likeness_net.embedded(net, [pairs], "cpu")
    cosines = (seen[:60] * seen[60:]).sum(dim=1)
    truth = registered_ssim(pairs, torch.arange(60), torch.arange(60, 120))
    assert np.corrcoef(cosines, truth)[0, 1] > 0.7


def test_work_is_counted_by_hand() -> None:
    """Ways, shifts, voxels: 3, 5 x 5, 28 x 28 in 2D; 4, 3 x 3 x 3, 14 x 14 x 14 in 3D; 3, 3 x 3, 6 x 4 of 8 x 6."""
    assert products_a_pair((1, 256, 256)) == 3 * 25 * 28**2
    assert products_a_pair((2, 16, 40, 16)) == 2 * 4 * 27 * 14**3
    assert products_a_pair((1, 8, 6)) == 3 * 9 * 6 * 4
