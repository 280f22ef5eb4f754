import pytest
import torch

from metseg.plan.plan import TtaPlan
from metseg.predict.passes import CaseNoise, augmented_images, count_passes, flip, group_passes, uses_noise


@pytest.mark.parametrize(("variant", "passes"), [("aurora", 13), ("flips", 4), ("none", 1)])
def test_number_of_passes(variant, passes):
    assert count_passes(TtaPlan(variant=variant)) == passes
    assert uses_noise(TtaPlan(variant=variant)) == (variant == "aurora")


def test_aurora_is_plain_then_noise_with_flips_of_x_and_y():
    groups = group_passes(TtaPlan(variant="aurora"))
    assert groups[0].noise is None
    assert groups[0].flips == ((),)
    assert [(r.noise, r.flips) for r in groups[1:]] == [(n, ((), (0,), (1,))) for n in range(4)]


@pytest.mark.parametrize("variant", ["aurora", "flips", "none"])
def test_passes_invert_exactly_and_never_mirror_z(variant):
    batch = torch.arange(2 * 3 * 4 * 5, dtype=torch.float32).reshape(1, 2, 3, 4, 5)
    for group in group_passes(TtaPlan(variant=variant)):
        for axes in group.flips:
            assert 2 not in axes
            assert torch.equal(flip(flip(batch, axes), axes), batch)


def test_a_flip_mirrors_the_axis_it_names():
    batch = torch.arange(24.0).reshape(1, 1, 2, 3, 4)
    assert torch.equal(flip(batch, (0,))[0, 0, 0], batch[0, 0, 1])
    assert torch.equal(flip(batch, (1,))[0, 0, :, 0], batch[0, 0, :, 2])


def test_noise_is_small_seeded_and_differs_by_draw():
    image = torch.full((2, 20, 20, 20), 0.5)
    plan = TtaPlan(variant="aurora", noise_std_max=0.001)
    first = [image for image, _ in augmented_images(image, CaseNoise(plan, 7))]
    again = [image for image, _ in augmented_images(image, CaseNoise(plan, 7))]
    other = [image for image, _ in augmented_images(image, CaseNoise(plan, 8))]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert torch.equal(first[0], image)
    assert not any(torch.equal(a, b) for a, b in zip(first[1:], other[1:], strict=True))
    stds = [float((noisy - image).std()) for noisy in first[1:]]
    assert len(set(stds)) == 4
    assert all(0 < std < 0.00101 for std in stds), "0.001 bounds the standard deviation, not the variance"


def test_members_that_read_as_many_channels_share_the_noise_and_leave_it_alone():
    noise = CaseNoise(TtaPlan(variant="aurora", noise_std_max=0.001), 7)
    dark, bright = torch.zeros(2, 8, 8, 8), torch.ones(2, 8, 8, 8)
    first = [image for image, _ in augmented_images(dark, noise)]
    second = [image for image, _ in augmented_images(bright, noise)]
    assert len(noise.drawn) == 4
    assert all(torch.allclose(one + 1, other, atol=1e-6) for one, other in zip(first, second, strict=True))
    assert noise.draw(0, (3, 8, 8, 8)).shape == (3, 8, 8, 8)
