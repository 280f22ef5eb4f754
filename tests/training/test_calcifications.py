"""Calcifications of healthy brains: dense spots on the CT, at their sites, none on the MR."""

import numpy as np
import pytest

from training.cohort.calcifications import SITES, calcify
from training.cohort.case import simulate_background
from training.cohort.radiosurgery_case import generate_radiosurgery_case
from training.cohort.settings import load_settings
from training.systems import RADIOSURGERY_TRAINING

TINY = load_settings(size="tiny", defaults=RADIOSURGERY_TRAINING.cohort_defaults)
NONE = dict.fromkeys(SITES, 0.0)


def with_chances(**chances):
    ct = TINY.ct.model_copy(update={"calcification_probability": NONE | chances, "calcification_mm": (8.0, 10.0)})
    return TINY.model_copy(update={"ct": ct})


@pytest.fixture(scope="module")
def anatomy():
    return simulate_background(TINY, np.random.SeedSequence([5, 0]).spawn(4))[0]


@pytest.mark.parametrize("kind", [*SITES])
def test_each_kind_is_dense_and_lies_at_its_site(anatomy, kind):
    brain = np.full(anatomy.mask.shape, 35.0, np.float32)
    settings = with_chances(**{kind: 1.0}).ct
    # Whatever is drawn, the spots of ten brains lie where textbooks have them.
    spots = [calcify(brain, anatomy, settings, np.random.default_rng(seed)) > 70 for seed in range(10)]
    spot = np.any(spots, axis=0)
    assert spot.any()
    assert not spot[~anatomy.mask].any()
    for site in SITES[kind]:
        near = spot & (np.sign(anatomy.midline) == np.sign(site.place[0])) if site.place[0] else spot
        found = [np.median(place[near]) for place in (anatomy.midline, anatomy.front, anatomy.height)]
        room = 4 + np.array(site.spread_mm)
        assert (np.abs(np.array(found) - site.place) < room).all(), found


def test_the_ct_alone_shows_them_and_nothing_else_changes():
    plain, dense = (
        generate_radiosurgery_case(with_chances(**chances), 5, 0) for chances in ({}, dict.fromkeys(SITES, 1))
    )
    assert np.array_equal(plain.t1c, dense.t1c)
    assert np.array_equal(plain.labels, dense.labels)
    changed = plain.ct.voxels != dense.ct.voxels
    assert 0 < changed.mean() < 0.01
    assert (dense.ct.voxels[changed] >= plain.ct.voxels[changed]).all()
