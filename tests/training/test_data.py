import errno
import json
import os
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from metseg.errors import ExitCode, InputError, OutputError, UsageError
from metseg.files.discovery import discover_cases
from metseg.files.read import read_case
from metseg.labels import BRATS_REGIONS
from metseg.plan.plan import IntensityPlan
from metseg.prepare.prepare import prepare_case
from training.data.augment import augmented_crop, change_intensities, rotation_matrix, stack_channels
from training.data.batches import CropDataset, Schedule, batch_loader
from training.data.cache import (
    find_problem,
    keep_entry,
    mean_brain_share,
    open_entry,
    prepare_all,
    prepare_entry,
)
from training.data.crops import draw_start
from training.data.false_positives import find_false_positives
from training.data.prepared import drop_large_lesions, prepare_training_case
from training.data.split import read_split, split_patients, write_split
from training.patients import find_patient
from training.recipe_sections import AugmentationRecipe, CropRecipe, DataRecipe, SplitRecipe
from training_support import (
    LPS,
    labelled_phantom,
    small_recipe,
    training_case,
    write_entries,
    write_labelled_case,
    write_labelled_cohort,
)

# ---- split


@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 3)), min_size=1, max_size=60),
    st.integers(0, 5),
    st.sampled_from([(0.8, 0.1), (0.5, 0.5), (1.0, 0.0)]),
)
def test_timepoints_of_a_patient_stay_together(visits, seed, shares):
    ids = {f"BraTS-MET-{patient:05d}-{visit:03d}" for patient, visit in visits}
    split = split_patients(ids, SplitRecipe(train=shares[0], validation=shares[1], seed=seed))
    parts = [split.train, split.validation, split.test]
    assert sorted(case_id for part in parts for case_id in part) == sorted(ids)
    patients = [{find_patient(case_id) for case_id in part} for part in parts]
    assert sum(map(len, patients)) == len(set.union(*patients))
    assert split.train


def test_the_shares_are_those_of_the_paper():
    split = split_patients([f"P-{number:04d}-000" for number in range(200)], SplitRecipe())
    assert (len(split.train), len(split.validation), len(split.test)) == (160, 20, 20)
    assert split == split_patients([f"P-{number:04d}-000" for number in reversed(range(200))], SplitRecipe())


def test_a_written_split_is_read_back(tmp_path):
    ids = [f"P-{number:04d}-000" for number in range(10)]
    split = split_patients(ids, SplitRecipe())
    write_split(tmp_path / "split.json", split)
    assert read_split(tmp_path / "split.json", ids) == split


def test_a_split_that_tears_a_patient_apart_is_refused(tmp_path):
    content = {"train": ["P-1-000"], "validation": ["P-1-001"], "test": []}
    (tmp_path / "split.json").write_text(json.dumps(content))
    with pytest.raises(UsageError, match="patient P-1 is in train and in validation"):
        read_split(tmp_path / "split.json", ["P-1-000", "P-1-001"])


REAL = [
    f"BraTS-{patient}-{visit}"
    for patient in (
        *(f"GLI-{number:05d}" for number in (0, 2, 3, 5, 6, 8, 9, 11, 12, 14)),
        *(f"SSA-{number:05d}" for number in (10, 14, 28, 41, 46, 78, 110, 113, 115, 116, 117, 122)),
    )
    for visit in ("000", "101")
]


def named_by(path):
    """The cases that a split of the project names, and some that its patterns may stand for."""
    content = json.loads(path.read_text())
    named = [name for name in content["train"] + content["validation"] if not name.endswith("*")]
    return [*named, *(f"SYN-MET-{number:05d}-000" for number in range(1, 30))]


SPLITS = sorted((Path(__file__).parents[2] / "training" / "splits").glob("*.json"))


@pytest.mark.parametrize("path", SPLITS, ids=lambda path: path.stem)
def test_the_bundled_splits_keep_patients_whole_and_the_challenge_case_out(path):
    split = read_split(path, [*named_by(path), *REAL])
    assert split.train
    assert not any(case_id.startswith("BraTS-MET") for case_id in (*split.train, *split.validation, *split.test))


def test_the_folds_measure_each_glioma_once_and_never_train_on_it_there():
    gliomas = {"train": [], "test": []}
    for path in (path for path in SPLITS if path.stem.startswith("mets_fold_")):
        content = json.loads(path.read_text())
        for part, found in gliomas.items():
            found.append({find_patient(case_id) for case_id in content[part] if case_id.startswith("BraTS-GLI")})
    everyone = set.union(*gliomas["test"])
    assert len(everyone) == sum(map(len, gliomas["test"])) == 10
    for trained, tested in zip(gliomas["train"], gliomas["test"], strict=True):
        assert trained == everyone - tested


def test_the_folds_over_all_gliomas_measure_each_once_and_the_final_split_trains_on_all():
    folds = [read_split(path, [*named_by(path), *REAL]) for path in SPLITS if path.stem.startswith("any_fold_")]
    patients = [{find_patient(case_id) for case_id in fold.test} for fold in folds]
    assert len(folds) == 3
    assert sum(map(len, patients)) == len(set.union(*patients)) == 22
    for fold, tested in zip(folds, patients, strict=True):
        trained = {find_patient(case_id) for case_id in fold.train if not case_id.startswith("SYN")}
        assert trained == {find_patient(case_id) for case_id in REAL} - tested
        assert set(fold.test) | set(fold.train) > set(REAL)
    final, synthetic = (next(path for path in SPLITS if path.stem == name) for name in ("any_final", "any_synthetic"))
    assert set(read_split(final, [*named_by(final), *REAL]).train) > set(REAL)
    assert not set(read_split(synthetic, [*named_by(synthetic), *REAL]).train) & set(REAL)


def test_a_name_with_a_star_stands_for_what_no_longer_name_fits(tmp_path):
    content = {"train": ["P-*"], "validation": ["P-1-000", "P-2*"], "test": ["P-3-*", "Q-*"]}
    (tmp_path / "split.json").write_text(json.dumps(content))
    split = read_split(tmp_path / "split.json", ["P-1-000", "P-2-000", "P-21-000", "P-3-000", "P-4-000", "R-1-000"])
    assert split.train == ("P-4-000",)
    assert split.validation == ("P-1-000", "P-2-000", "P-21-000")
    assert split.test == ("P-3-000",)
    with pytest.raises(UsageError, match=r"P-\* fits none of the data"):
        read_split(tmp_path / "split.json", ["P-1-000", "P-2-000"])
    with pytest.raises(UsageError, match="patient P-1 is in train and in validation"):
        read_split(tmp_path / "split.json", ["P-1-000", "P-1-001", "P-2-000"])


# ---- preparation and cache


@pytest.fixture
def files(tmp_path):
    write_labelled_case(tmp_path / "data", "P-0-000", seed=1)
    return discover_cases(tmp_path / "data")[0]


def test_training_prepares_as_inference_does(files):
    case = prepare_training_case(files, DataRecipe(), BRATS_REGIONS)
    inferred = prepare_case(read_case(files, modalities=tuple(files.images)), DataRecipe().intensity)
    x, y, z = (slice(first, end) for first, end in case.box)
    for modality, image in zip(case.modalities, case.images, strict=True):
        assert np.abs(image - inferred.channels[modality][x, y, z]).max() < 1e-3  # float16 on disk
        assert inferred.channels[modality].sum() == pytest.approx(inferred.channels[modality][x, y, z].sum())
    stacked = stack_channels(torch.from_numpy(case.images.astype(np.float32)), case.modalities, ["sub"], "refuse")
    assert np.abs(stacked[0].numpy() - inferred.channels["sub"][x, y, z]).max() < 2e-3


def test_preparing_settles_the_background_and_measures_the_brain(files, tmp_path, caplog):
    first = prepare_training_case(files, DataRecipe(), BRATS_REGIONS)
    stored = nib.load(files.images["t1n"])
    image = stored.get_fdata(dtype=np.float32)
    assert first.brain_share == pytest.approx(np.mean(image != 0), abs=1e-4)
    nib.save(nib.Nifti1Image(np.where(image == 0, np.nan, image), stored.affine), files.images["t1n"])
    second = prepare_training_case(files, DataRecipe(), BRATS_REGIONS)
    np.testing.assert_array_equal(second.images, first.images)
    assert "case P-0-000: t1n (P-0-000-t1n.nii.gz): the background is NaN" in caplog.text
    assert second.box == first.box
    entry = keep_entry("P-0-000", "key", tmp_path, lambda: second)
    assert open_entry(entry).brain_share == second.brain_share
    unknown = keep_entry("case-0", "other", tmp_path, lambda: training_case(0))
    assert mean_brain_share([entry, unknown]) == pytest.approx(second.brain_share, abs=1e-4)
    assert mean_brain_share([unknown]) is None


def test_percentiles_over_the_brain_are_the_recipes(files):
    intensity = IntensityPlan(percentiles_over="brain")
    case = prepare_training_case(files, DataRecipe(intensity=intensity), BRATS_REGIONS)
    inferred = prepare_case(read_case(files, modalities=tuple(files.images)), intensity)
    x, y, z = (slice(first, end) for first, end in case.box)
    for modality, image in zip(case.modalities, case.images, strict=True):
        assert np.abs(image - inferred.channels[modality][x, y, z]).max() < 1e-3
    assert not np.array_equal(case.images, prepare_training_case(files, DataRecipe(), BRATS_REGIONS).images)


def test_an_entry_is_found_again_and_follows_file_and_setting(files, tmp_path):
    cache = tmp_path / "cache"
    first = prepare_entry(files, small_recipe(), cache)
    stamp = (first / "images.npy").stat().st_mtime_ns
    assert prepare_entry(files, small_recipe(), cache) == first
    assert (first / "images.npy").stat().st_mtime_ns == stamp
    # Channels are chosen when a crop is made: members of different channels share an entry.
    assert prepare_entry(files, small_recipe(data={"channels": ("t1n", "t1c", "t2f", "sub")}), cache) == first
    assert prepare_entry(files, small_recipe(data={"max_lesion_voxels": 50}), cache) != first
    assert prepare_entry(files, small_recipe(data={"intensity": {"percentiles_over": "brain"}}), cache) != first
    shutil.rmtree(files.folder)
    write_labelled_case(files.folder.parent, "P-0-000", seed=2)
    assert prepare_entry(files, small_recipe(), cache) != first


@pytest.mark.parametrize("damage", ["byte", "missing", "json"])
def test_a_broken_entry_is_made_again(tmp_path, damage):
    case = training_case(0)
    entry = keep_entry(case.case_id, "key", tmp_path, lambda: case)
    match damage:
        case "byte":
            content = bytearray((entry / "components.npy").read_bytes())
            content[-3] ^= 1
            (entry / "components.npy").write_bytes(content)
        case "missing":
            (entry / "images.npy").unlink()
        case "json":
            (entry / "entry.json").write_text("{")
    assert find_problem(entry) is not None
    again = keep_entry(case.case_id, "key", tmp_path, lambda: case)
    assert find_problem(again) is None
    assert np.array_equal(open_entry(again).components, case.components)


def test_an_entry_is_as_readable_as_the_umask_allows(tmp_path):
    case = training_case(0)
    before = os.umask(0o027)
    try:
        entry = keep_entry(case.case_id, "key", tmp_path, lambda: case)
    finally:
        os.umask(before)
    assert entry.stat().st_mode & 0o777 == 0o750
    assert {path.stat().st_mode & 0o777 for path in entry.iterdir()} == {0o640}


def test_an_entry_that_another_process_made_meanwhile_is_taken(tmp_path):
    case = training_case(0)

    def make():
        keep_entry(case.case_id, "key", tmp_path, lambda: case)
        return case

    entry = keep_entry(case.case_id, "key", tmp_path, make)
    assert find_problem(entry) is None
    assert list(tmp_path.iterdir()) == [entry]


@pytest.mark.parametrize(
    ("function", "number"), [("os.rename", errno.EIO), ("np.save", errno.ENOSPC), ("os.rename", errno.EACCES)]
)
def test_an_entry_that_cannot_be_written_says_so_and_leaves_nothing(tmp_path, monkeypatch, function, number):
    def fail(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(f"training.data.cache.{function}", fail)
    case = training_case(0)
    with pytest.raises(OutputError, match=f"key can't be written: {os.strerror(number)}"):
        keep_entry(case.case_id, "key", tmp_path, lambda: case)
    assert not list(tmp_path.iterdir())


def test_an_entry_of_another_user_is_not_taken_for_broken(tmp_path, monkeypatch):
    case = training_case(0)
    entry = keep_entry(case.case_id, "key", tmp_path, lambda: case)

    def refuse(_):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(entry / "entry.json"))

    monkeypatch.setattr("training.data.cache._read_json", refuse)
    with pytest.raises(InputError, match=r"may not read .*entry\.json") as caught:
        keep_entry(case.case_id, "key", tmp_path, lambda: case)
    assert "--cache" in caught.value.hint
    monkeypatch.undo()
    assert find_problem(entry) is None


def test_a_reference_on_another_grid_is_refused_with_the_difference(tmp_path):
    _, labels = labelled_phantom(1)
    for number, (volume, affine, difference) in enumerate(
        [(labels[1:], LPS, "31x40x24 voxels, expected 32x40x24"), (labels, LPS + np.eye(4, k=3), "1 mm apart")]
    ):
        case = write_labelled_case(tmp_path / str(number), "P-0-000", seed=1)
        nib.save(nib.Nifti1Image(volume, affine), case / "P-0-000-seg.nii.gz")
        with pytest.raises(InputError, match=difference):
            prepare_training_case(discover_cases(tmp_path / str(number))[0], DataRecipe(), BRATS_REGIONS)


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-100])


def label_with_five(path):
    image = nib.load(path)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj) // 3 * 5, image.affine), path)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [("seg", cut_short, "truncated"), ("seg", label_with_five, "holds 5, expected"), ("t1c", cut_short, "truncated")],
)
def test_a_broken_file_is_named_with_its_case_by_any_number_of_processes(tmp_path, workers, name, damage, message):
    folder = write_labelled_cohort(tmp_path / "data", 3)
    damage(folder / "P-00001-000" / f"P-00001-000-{name}.nii.gz")
    with pytest.raises(InputError, match=message) as caught:
        prepare_all(discover_cases(folder), small_recipe(), tmp_path / "cache", workers=workers)
    assert str(caught.value).startswith("case P-00001-000: ")
    assert f"P-00001-000-{name}.nii.gz" in str(caught.value)
    assert caught.value.hint
    assert caught.value.exit_code == ExitCode.INPUT


def test_a_file_that_cannot_be_opened_is_named_with_its_case(files, tmp_path):
    files.images["t1c"].unlink()
    files.images["t1c"].mkdir()
    with pytest.raises(InputError, match=r"^case P-0-000: .*P-0-000-t1c\.nii\.gz can't be read: "):
        prepare_all((files,), small_recipe(), tmp_path / "cache")


def test_a_case_without_reference_is_refused(tmp_path):
    write_labelled_case(tmp_path, "P-0-000", seed=1, without="seg")
    with pytest.raises(InputError, match="no P-0-000-seg"):
        prepare_training_case(discover_cases(tmp_path)[0], DataRecipe(), BRATS_REGIONS)


def test_large_lesions_leave_the_label_only_above_tau():
    labels = np.zeros((40, 20, 20), dtype=np.uint8)
    labels[:10, :10, :10] = 2  # 1000 voxels of WT, an ET inside
    labels[4:6, 4:6, 4:6] = 3
    labels[20:31, :10, :10] = 3  # 1100
    kept = drop_large_lesions(labels, BRATS_REGIONS, 1000)
    assert np.array_equal(kept[:15], labels[:15])
    assert not kept[15:].any()


@pytest.mark.parametrize(("choice", "expected"), [("t2f", "t2f"), ("zeros", None)])
def test_a_missing_t2w_is_replaced_as_the_recipe_says(choice, expected):
    images = torch.rand((3, 4, 4, 4))
    stacked = stack_channels(images, ["t1n", "t1c", "t2f"], ["t2w"], choice)
    assert torch.equal(stacked[0], images[2] if expected else torch.zeros((4, 4, 4)))


# ---- crops and augmentation


@pytest.mark.parametrize("domain", ["volume", "brain"])
def test_a_centred_crop_holds_a_lesion_and_a_uniform_one_lies_in_its_domain(domain):
    case = training_case(3)
    rng = np.random.default_rng(0)
    region = BRATS_REGIONS.names.index("TC")
    held = {}
    for probability in (0.0, 1.0):
        recipe = CropRecipe(size=(16, 16, 16), domain=domain, lesion_probability=probability)
        crops = [
            augmented_crop(
                case, draw_start(case, recipe, rng, channel=1), recipe, AugmentationRecipe(affine_probability=0), rng
            )
            for _ in range(60)
        ]
        held[probability] = np.mean([bool((components[region] > 0).any()) for _, components in crops])
    assert held[1.0] == 1
    assert held[0.0] < 1


def test_a_crop_holds_a_false_positive_where_there_is_one():
    case = training_case(3, lesions=0)
    rng = np.random.default_rng(0)
    recipe = CropRecipe(size=(8, 8, 8), lesion_probability=0.4, false_positive_probability=0.6)
    spots = np.array([[1, 2, 3, 4], [2, 20, 30, 10], [2, 20, 30, 11]], dtype=np.int32)
    starts = np.array([draw_start(case, recipe, rng, channel=1, false_positives=spots) for _ in range(200)])
    held = ((starts[:, None] <= spots[:, 1:]) & (spots[:, 1:] < starts[:, None] + 8)).all(axis=2)
    assert held.any(axis=1).all()
    assert 60 < held[:, 0].sum() < 140  # each component as often as the other, however many voxels it has
    uniform = np.array([draw_start(case, recipe, rng, channel=1) for _ in range(200)])
    assert len(np.unique(uniform, axis=0)) > 100


def test_false_positives_touch_no_lesion_and_lie_in_the_box(tmp_path):
    case_folder = write_labelled_case(tmp_path / "data", "P-0-000", seed=1)
    files = discover_cases(tmp_path / "data")[0]
    recipe = small_recipe()
    entries = {"P-0-000": prepare_entry(files, recipe, tmp_path / "cache")}
    reference = nib.load(case_folder / "P-0-000-seg.nii.gz")
    labels = np.asarray(reference.dataobj).astype(np.uint8)
    spots = ((x + 12, y + 14, z + 8) for x, y, z in np.ndindex(8, 12, 8))
    far = next(spot for spot in spots if not labels[tuple(slice(axis - 2, axis + 3) for axis in spot)].any())
    predicted = labels.copy()  # what is true, and one voxel of core far from it
    predicted[far] = 3
    (tmp_path / "maps").mkdir()
    nib.save(nib.Nifti1Image(predicted, reference.affine), tmp_path / "maps" / "P-0-000.nii.gz")
    found = find_false_positives([files], [tmp_path / "maps"], entries, recipe)["P-0-000"]
    box = open_entry(entries["P-0-000"]).box
    turned = [39 - far[1] if axis == 1 else 31 - far[0] if axis == 0 else far[2] for axis in range(3)]  # LPS to RAS
    assert found[:, 1:].tolist() == [[turned[axis] - box[axis][0] for axis in range(3)]]
    nib.save(nib.Nifti1Image(labels, reference.affine), tmp_path / "maps" / "P-0-000.nii.gz")
    assert not find_false_positives([files], [tmp_path / "maps"], entries, recipe)


def test_predictions_of_other_cases_or_grids_are_refused(tmp_path):
    write_labelled_case(tmp_path / "data", "P-0-000", seed=1)
    files = discover_cases(tmp_path / "data")[0]
    recipe = small_recipe()
    entries = {"P-0-000": prepare_entry(files, recipe, tmp_path / "cache")}
    (tmp_path / "maps").mkdir()
    with pytest.raises(UsageError, match=r"expected label maps <ID>.nii.gz of the training cases, found none"):
        find_false_positives([files], [tmp_path / "maps"], entries, recipe)
    nib.save(nib.Nifti1Image(np.zeros((8, 8, 8), np.uint8), LPS), tmp_path / "maps" / "P-0-000.nii.gz")
    with pytest.raises(UsageError, match=r"P-0-000.* is not on the reference's grid"):
        find_false_positives([files], [tmp_path / "maps"], entries, recipe)


def test_starts_are_uniform_over_the_domain():
    case = training_case(3)
    recipe = CropRecipe(size=(16, 16, 16), domain="volume")
    rng = np.random.default_rng(0)
    starts = np.array([draw_start(case, recipe, rng, channel=1) for _ in range(600)])
    for axis in range(3):
        low = -case.box[axis][0]
        places = case.volume_shape[axis] - 16 + 1
        counts = np.bincount(starts[:, axis] - low, minlength=places)
        assert len(counts) == places
        assert counts.min() > 0


def test_images_and_components_turn_together():
    case = training_case(4)
    recipe = AugmentationRecipe(affine_probability=1, flip_probability=1, rotation_degrees=(8, 8, 8))
    images, components = augmented_crop(
        case, (4, 4, 2), CropRecipe(size=(24, 24, 16)), recipe, np.random.default_rng(1)
    )
    # ET is bright in t1c, before and after.
    t1c = images[case.modalities.index("t1c")]
    assert t1c[components[2] > 0].mean() > 1.5 * t1c[(components[0] == 0) & (t1c > 0)].mean()
    assert set(np.unique(components[0])) <= set(np.unique(case.components[0]))


def test_an_affine_without_range_is_the_identity():
    case = training_case(4)
    crops = CropRecipe(size=(16, 16, 16))
    still = AugmentationRecipe(affine_probability=1, rotation_degrees=(0, 0, 0), scaling=0, flip_probability=0)
    plain = still.model_copy(update={"affine_probability": 0})
    one = augmented_crop(case, (5, 5, 3), crops, still, np.random.default_rng(0))
    other = augmented_crop(case, (5, 5, 3), crops, plain, np.random.default_rng(0))
    assert torch.allclose(one[0], other[0], atol=1e-4)
    assert torch.equal(one[1], other[1])


def test_a_rotation_keeps_lengths():
    matrix = rotation_matrix((10, 20, 30))
    assert np.allclose(matrix @ matrix.T, np.eye(3))
    assert np.linalg.det(matrix) == pytest.approx(1)


def test_intensity_changes_stay_in_range_and_leave_the_background():
    images, _ = labelled_phantom(1)
    stacked = torch.stack([torch.from_numpy(volume / volume.max()) for volume in images.values()]).clamp(0, 1)
    everything = AugmentationRecipe(
        gamma_probability=1,
        contrast_probability=1,
        brightness_probability=1,
        blur_probability=1,
        coarse_probability=1,
        bias_probability=1,
    )
    for seed in range(5):
        changed = change_intensities(stacked, everything, np.random.default_rng(seed))
        assert changed.min() >= 0
        assert changed.max() <= 1
        assert not changed[:, (stacked == 0).all(0)].any()
        assert not torch.equal(changed, stacked)


# ---- schedule


@given(st.integers(1, 23), st.integers(1, 7), st.integers(1, 4), st.integers(0, 3))
def test_every_case_once_an_epoch_whatever_the_ranks(cases, batch, world, epoch):
    ids = [f"c{number}" for number in range(cases)]
    schedule = Schedule(ids, batch, seed=1)
    seen, weights = [], []
    for step in range(epoch * schedule.steps_per_epoch, (epoch + 1) * schedule.steps_per_epoch):
        slots = [schedule.slots(step, rank, world) for rank in range(world)]
        assert len({len(part) for part in slots}) == 1
        assert all(part for part in slots)
        seen += [slot.case_id for part in slots for slot in part if slot.weight == 1]
        weights += [slot.weight for part in slots for slot in part]
        together = {(slot.place, slot.case_id) for part in slots for slot in part}
        assert together == {(slot.place, slot.case_id) for slot in schedule.slots(step)}
    assert sorted(seen) == sorted(ids)
    assert sum(weights) == cases


def test_a_sample_depends_on_its_place_alone(tmp_path):
    entries = write_entries(tmp_path, 5)
    recipe = small_recipe(loss={"vae_weight": 0.1})
    schedule = Schedule(sorted(entries), 2, recipe.seed)
    dataset = CropDataset(entries, recipe)
    whole = list(batch_loader(dataset, schedule, first_step=0, total_steps=6))
    resumed = list(batch_loader(dataset, schedule, first_step=4, total_steps=6))
    for one, other in zip(whole[4:], resumed, strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.components, other.components)
        assert torch.equal(one.noise, other.noise)
    second = next(iter(batch_loader(dataset, schedule, first_step=1, total_steps=2, rank=1, world=2)))
    assert torch.equal(second.images, whole[1].images[2:])
    assert second.case_ids == whole[1].case_ids[2:]


def test_a_step_draws_one_size_for_all_its_crops_on_every_rank(tmp_path):
    entries = write_entries(tmp_path, 4)
    recipe = small_recipe(crops={"other_sizes": [[24, 16, 16], [8, 8, 8]]})
    schedule = Schedule(sorted(entries), 2, recipe.seed)
    dataset = CropDataset(entries, recipe)
    whole = list(batch_loader(dataset, schedule, first_step=0, total_steps=12))
    parts = [list(batch_loader(dataset, schedule, first_step=0, total_steps=12, rank=rank, world=2)) for rank in (0, 1)]
    sizes = [tuple(batch.images.shape[2:]) for batch in whole]
    assert set(sizes) == {(16, 16, 16), (24, 16, 16), (8, 8, 8)}
    assert sizes == [tuple(batch.images.shape[2:]) for batch in parts[0]]
    assert sizes == [tuple(batch.images.shape[2:]) for batch in parts[1]]
    assert all(batch.components.shape[2:] == batch.images.shape[2:] for batch in whole)


def test_visits_by_the_beginning_of_the_id():
    data = DataRecipe(visits={"REAL": 3, "REAL-2": 5})
    assert [data.count_visits(case_id) for case_id in ("SYN-1", "REAL-1", "REAL-2")] == [1, 3, 5]
    schedule = Schedule([case for case in ("SYN-1", "REAL-1") for _ in range(data.count_visits(case))], 2, seed=0)
    epoch = [slot.case_id for step in range(schedule.steps_per_epoch) for slot in schedule.slots(step)]
    assert sorted(epoch) == ["REAL-1"] * 3 + ["SYN-1"]
