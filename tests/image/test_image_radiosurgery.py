"""The image with the radiosurgery system's bundle, which it holds beside the default one."""

import nibabel as nib
import numpy as np
import pytest

from image_support import NOBODY, Folders, assert_label_map, names, run
from metseg.selftest.painting import CASE_ID
from metseg.selftest.phantoms import WHOLE_HEAD

pytestmark = [pytest.mark.image, pytest.mark.timeout(900)]


def test_a_head_with_a_planning_ct(engine, image, tmp_path):
    folders = Folders.under(tmp_path)
    case = WHOLE_HEAD.write(folders.data)
    ended = run(engine, image, ["infer", "--weights", "srs-demo"], volumes=folders.mounts())
    assert ended.exit_code == 0, ended.log
    assert names(folders.output) == [f"{CASE_ID}.nii.gz"]
    assert_label_map(folders.output / f"{CASE_ID}.nii.gz", case / f"{CASE_ID}-t1c.nii.gz", owner=NOBODY)
    labels = np.asanyarray(nib.load(folders.output / f"{CASE_ID}.nii.gz").dataobj)
    assert set(np.unique(labels)) == {0, 1}
    assert labels[36:45, 78:87, 34:39].any(), "the largest metastasis, 18 mm at (40, 82, 72) mm"


def test_its_self_test(engine, image):
    ended = run(engine, image, ["self-test", "--weights", "srs-demo"])
    assert ended.exit_code == 0, ended.log
