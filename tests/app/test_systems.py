"""Systems are told by their regions, and everything that differs between them is declared."""

from itertools import combinations

import numpy as np
import pytest

from metseg.systems import (
    BRATS,
    HIGHEST_LABEL,
    OWN_GRID,
    RADIOSURGERY,
    SOURCE_MODALITY,
    SYSTEMS,
    common_system,
    find_system,
    system_of_images,
    system_of_regions,
)


def test_no_two_systems_know_a_region_of_the_same_name():
    for one, other in combinations(SYSTEMS.values(), 2):
        assert not one.region_kinds.keys() & other.region_kinds.keys()


@pytest.mark.parametrize("system", SYSTEMS.values(), ids=list(SYSTEMS))
def test_a_declaration_is_complete(system):
    assert system.regions.names == tuple(system.region_kinds)
    assert set(system.regions.labels) == system.label_kinds.keys()
    assert SOURCE_MODALITY in system.modalities
    assert bool(set(system.modalities) & OWN_GRID) == system.is_registered == bool(system.scan)
    assert system_of_regions(system.regions.names) is system
    assert system_of_images(system.modalities) is system
    assert find_system(system.name) is system
    assert max(system.regions.labels) <= HIGHEST_LABEL


def test_a_subset_of_regions_names_the_system_and_a_mixture_none():
    assert system_of_regions(["WT", "RC"]) is BRATS
    with pytest.raises(ValueError, match="no system knows the regions WT, metastasis"):
        system_of_regions(["WT", "metastasis"])


def test_what_several_have_in_common_is_the_default_where_they_differ():
    assert common_system([RADIOSURGERY, RADIOSURGERY]) is RADIOSURGERY
    assert common_system([RADIOSURGERY, BRATS]) is BRATS
    assert common_system([]) is BRATS


def test_labels_of_other_programs_are_unified_where_a_lesion_has_no_parts():
    labels = np.array([0, 1, 2, 4], dtype=np.uint8)
    assert BRATS.unify_labels(labels) is labels
    np.testing.assert_array_equal(RADIOSURGERY.unify_labels(labels), [0, 1, 1, 1])
