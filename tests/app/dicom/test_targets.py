import numpy as np
import pytest

from metseg.dicom.targets import GTV, LONGEST_NAME, NO_TARGET, find_targets
from metseg.report.lesions import measure_lesions
from metseg.space.grid import Grid
from metseg.systems import BRATS, RADIOSURGERY


def grid_of(labels, spacing=1.0):
    return Grid(labels.shape, np.diag([spacing, spacing, spacing, 1.0]))


def shared_oedema():
    """Lesion 1: two cores in one oedema; lesion 2: oedema alone; lesion 3: one voxel; a cavity is none."""
    labels = np.zeros((30, 20, 12), dtype=np.uint8)
    labels[2:22, 2:12, 2:10] = 2
    labels[4:8, 4:8, 4:8] = 3
    labels[5, 5, 5] = 1
    labels[14:17, 4:7, 4:7] = 1
    labels[25:28, 2:5, 2:5] = 2
    labels[28, 18, 10] = 3
    labels[2:5, 15:18, 2:5] = 4
    return labels


def test_each_core_is_a_target_numbered_by_its_lesion_in_the_report():
    labels = shared_oedema()
    targets = find_targets(labels, grid_of(labels), BRATS)
    assert [target.name for target in targets] == ["GTV01a 0.064cc", "GTV01b 0.027cc", "OED02 0.027cc", "GTV03 0.001cc"]
    assert [target.interpreted_type for target in targets] == [GTV, GTV, NO_TARGET, GTV]
    assert targets[1].description == "lesion 1, core 2 of 2: NETC and ET, 27 mm3"
    assert targets[2].description == "lesion 2: SNFH alone, not a target, 27 mm3"
    found = np.zeros(labels.shape, dtype=int)
    for target in targets:
        found[target.box] += target.mask
    np.testing.assert_array_equal(
        found, (labels == 1) | (labels == 3) | (np.arange(30)[:, None, None] > 22) & (labels == 2)
    )
    lesions = measure_lesions(labels, grid_of(labels), BRATS.regions)
    assert [lesion.part_volumes_mm3["TC"] for lesion in lesions] == [64 + 27, 0, 1]


def test_a_metastasis_of_radiosurgery_is_one_target():
    labels = (shared_oedema() > 0).astype(np.uint8)
    targets = find_targets(labels, grid_of(labels), RADIOSURGERY)
    assert [target.interpreted_type for target in targets] == [GTV] * 4
    assert targets[0].description == "lesion 1: metastasis, 1600 mm3"


@pytest.mark.parametrize(
    ("spacing", "volume"), [(0.1, "0.000cc"), (1, "0.027cc"), (4, "1.73cc"), (9.9, "26.2cc"), (30, "729cc")]
)
def test_names_fit_into_sixteen_characters_whatever_the_size(spacing, volume):
    labels = np.zeros((5, 5, 5), dtype=np.uint8)
    labels[1:4, 1:4, 1:4] = 3
    (target,) = find_targets(labels, grid_of(labels, spacing), BRATS)
    assert target.name == f"GTV01 {volume}"


def test_names_differ_and_fit_with_hundreds_of_lesions_and_dozens_of_cores():
    labels = np.zeros((60, 60, 8), dtype=np.uint8)
    labels[::4, ::4, ::4] = 3
    labels[:4, :, :3][labels[:4, :, :3] == 0] = 2
    labels[0:2, :, 0:2][labels[0:2, :, 0:2] == 0] = 2
    labels[0, 0:60:2, 0] = 3
    targets = find_targets(labels, grid_of(labels), BRATS)
    names = [target.name for target in targets]
    assert len(names) > 400
    assert len(set(names)) == len(names)
    assert max(map(len, names)) <= LONGEST_NAME
    assert any(name.startswith("GTV001ab ") for name in names)


def test_without_lesion_there_is_no_target():
    labels = np.zeros((4, 4, 4), dtype=np.uint8)
    labels[1, 1, 1] = 4
    assert find_targets(labels, grid_of(labels), BRATS) == ()
