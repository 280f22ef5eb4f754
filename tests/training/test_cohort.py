"""The synthetic cohort: layout, determinism, and what a case may and may not contain."""

import hashlib
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from metseg.errors import UsageError
from training.cohort.artefacts import quantise
from training.cohort.case import generate_case
from training.cohort.contrasts import Background, TissueLevels
from training.cohort.fields import apply_along, expand, linear_matrix, smooth_field, spline_matrix
from training.cohort.lesions import draw_diameters, place_lesions
from training.cohort.settings import MODALITIES, load_settings
from training.cohort.writing import write_cohort
from training.systems import TRAINING_SYSTEMS

TINY = load_settings(size="tiny")
SEED = 5


def fingerprint(folder):
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.rglob("*.gz"))
    }


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """Three tiny cases on disk and what was placed into them."""
    output = tmp_path_factory.mktemp("cohort")
    return output, list(write_cohort(TINY, cases=3, seed=SEED, output=output))


def read(written, kind):
    return nib.load(written.folder / f"{written.case_id}-{kind}.nii.gz")


def test_layout_is_the_challenges(cohort):
    output, cases = cohort
    for written in cases:
        names = sorted(p.name for p in written.folder.iterdir())
        kinds = sorted([*MODALITIES, "seg"])
        assert names == [f"{written.case_id}-{kind}.nii.gz" for kind in kinds]
    assert sorted(p.name for p in output.iterdir()) == [f"SYN-MET-0000{n}-000" for n in (1, 2, 3)]


def test_grid_and_header_are_like_sri24(cohort):
    _, cases = cohort
    for written in cases:
        for kind in (*MODALITIES, "seg"):
            image = read(written, kind)
            assert image.shape == TINY.grid.shape
            assert nib.aff2axcodes(image.affine) == ("L", "P", "S")
            assert np.allclose(image.header.get_zooms(), 1)
            assert image.header.get_xyzt_units() == ("mm", "sec")
            assert (int(image.header["qform_code"]), int(image.header["sform_code"])) == (1, 1)
            assert np.array_equal(image.affine[:3, 3], [0, TINY.grid.shape[1] - 1, 0])
        assert read(written, "seg").get_data_dtype() == np.uint8


def test_full_size_is_brats():
    assert load_settings().grid.shape == (240, 240, 155)


def test_labels_lie_in_the_brain_and_are_0_to_3(cohort):
    _, cases = cohort
    for written in cases:
        labels = np.asanyarray(read(written, "seg").dataobj)
        assert set(np.unique(labels)) <= {0, 1, 2, 3}
        for modality in MODALITIES:
            image = np.asanyarray(read(written, modality).dataobj)
            assert (image[labels > 0] > 0).all()
            assert (image >= 0).all()
            assert 0.03 < (image > 0).mean() < 0.4


def test_listed_lesions_are_where_they_say(cohort):
    _, cases = cohort
    assert sum(len(c.lesions) for c in cases) > 0
    for written in cases:
        labels = np.asanyarray(read(written, "seg").dataobj)
        core = np.isin(labels, (1, 3))
        assert (labels > 0).any() == bool(written.lesions)
        assert all(core[lesion.centre] for lesion in written.lesions)
        _, components = ndimage.label(core, structure=np.ones((3, 3, 3)))
        assert components <= len(written.lesions)


def test_no_oedema_without_a_core(cohort):
    _, cases = cohort
    for written in cases:
        labels = np.asanyarray(read(written, "seg").dataobj)
        components, count = ndimage.label(labels > 0, structure=np.ones((3, 3, 3)))
        assert set(components[np.isin(labels, (1, 3))]) == set(range(1, count + 1))


def test_bytes_do_not_depend_on_jobs_or_first(cohort, tmp_path):
    output, _ = cohort
    list(write_cohort(TINY, cases=1, seed=SEED, output=tmp_path / "later", jobs=2, first=2))
    later = fingerprint(tmp_path / "later")
    assert len(later) == 5
    assert later.items() <= fingerprint(output).items()


def test_another_seed_is_another_case(cohort):
    output, _ = cohort
    case = generate_case(TINY, SEED + 1, 0)
    first = nib.load(output / "SYN-MET-00001-000" / "SYN-MET-00001-000-t1n.nii.gz")
    assert not np.array_equal(case.images["t1n"], np.asanyarray(first.dataobj))


def test_other_lesion_settings_keep_the_anatomy(cohort):
    written = cohort[1][1]
    quiet = TINY.model_copy(update={"lesions": TINY.lesions.model_copy(update={"none_probability": 1.0})})
    without = generate_case(quiet, SEED, 1)
    assert written.lesions
    assert not without.lesions
    assert not without.labels.any()
    brain = np.asanyarray(read(written, "t1n").dataobj) > 0
    assert (brain == (without.images["t1n"] > 0)).mean() > 0.999


def test_counts_and_diameters_follow_the_settings():
    settings, rng = load_settings().lesions, np.random.default_rng(3)
    cases = [draw_diameters(settings, 1.0, rng) for _ in range(3000)]
    counts = np.array([len(c) for c in cases])
    assert counts.min() == 0
    assert counts.max() == settings.count_max
    assert np.mean(counts == 0) == pytest.approx(settings.none_probability, abs=0.012)
    assert 5.5 < counts.mean() < 8.0  # 3076 lesions in 402 studies are 7.65
    diameters = np.concatenate(cases)
    assert diameters.min() >= settings.diameter_range_mm[0]
    assert diameters.max() <= settings.giant_diameter_mm[1]
    assert np.mean(diameters < 10) > 0.75  # "most under 1 cm"
    assert 0.12 < np.mean(diameters**3 * np.pi / 6 < 27) < 0.35
    large = np.mean([len(c) > 0 and c[0] >= 20 for c in cases])
    assert 0.15 < large < 0.45
    assert all((np.diff(c) <= 0).all() for c in cases)


def flat_background(side=40):
    """Uniform white matter with a ventricle in the corner: what a real patient's images would be given as."""
    shape = (side, side, side)
    ones, zeros = np.ones(shape, np.float32), np.zeros(shape, np.float32)
    ventricles = zeros.copy()
    ventricles[: side // 4, : side // 4] = 1
    levels = {"t1c": TissueLevels(gm=0.3, wm=0.4, csf=0.1), "t2f": TissueLevels(gm=0.5, wm=0.4, csf=0.1)}
    return Background(
        images={m: ones * v.wm for m, v in levels.items()},
        levels=levels,
        noise_std=dict.fromkeys(levels, 0.01),
        mask=ones > 0,
        gm=0.1 * ones,
        wm=0.9 * ones,
        ventricles=ventricles,
        free=ones > 0,
        fossa=np.zeros(shape, np.uint8),
        depth=10 * ones,
    )


def test_lesions_change_only_a_copy_and_spare_ventricles():
    background = flat_background()
    before = {m: image.copy() for m, image in background.images.items()}
    settings = load_settings().lesions.model_copy(update={"none_probability": 0.0, "giant_probability": 0.0})
    images, labels, lesions = place_lesions(background, settings, np.random.default_rng(0))
    assert lesions
    assert set(images) == {"t1c", "t2f"}
    assert all(np.array_equal(background.images[m], before[m]) for m in before)
    assert not labels[background.ventricles > 0.5].any()
    assert any(not np.array_equal(images[m], before[m]) for m in before)


@pytest.mark.parametrize("cnr", [1.0, 4.0])
def test_faint_lesions_have_the_contrast_they_were_given(cnr):
    background = flat_background()
    settings = load_settings().lesions.model_copy(
        update={
            "none_probability": 0.0,
            "giant_probability": 0.0,
            "dominant_probability": 0.0,
            "diameter_range_mm": (8.0, 8.0),
            "faint_probability": 1.0,
            "faint_cnr": (cnr, cnr),
            "necrosis_midpoint_mm": 1000.0,
            "count_max": 1,
            "haemorrhage_probability": 0.0,
            "unevenness": (0.0, 0.0),
        }
    )
    images, labels, (lesion,) = place_lesions(background, settings, np.random.default_rng(2))
    assert lesion.cnr == pytest.approx(cnr, rel=1e-4)
    inner = ndimage.binary_erosion(labels == 3)
    assert images["t1c"][inner].mean() - 0.4 == pytest.approx(cnr * 0.01, rel=0.3)


def test_nothing_free_means_no_lesion():
    background = flat_background(16)
    full = replace(background, free=~background.mask)
    _, labels, lesions = place_lesions(full, load_settings().lesions, np.random.default_rng(1))
    assert lesions == ()
    assert not labels.any()


def test_fields_have_unit_variance_and_follow_the_seed():
    drawn = smooth_field(np.random.default_rng(1), (64, 60, 56), 4.0)
    assert drawn.std() == pytest.approx(1, abs=0.05)
    assert abs(drawn.mean()) < 0.2
    assert np.array_equal(drawn, smooth_field(np.random.default_rng(1), (64, 60, 56), 4.0))


def test_interpolating_matrices_keep_constants_and_lines():
    assert np.allclose(spline_matrix(50, 9).sum(axis=1), 1, atol=1e-6)
    assert np.allclose(linear_matrix(50, 9).sum(axis=1), 1, atol=1e-6)
    line = np.arange(12, dtype=np.float32)
    assert np.allclose(linear_matrix(12, 12) @ line, line, atol=1e-5)
    constant = np.full((7, 8, 9), 3, np.float32)
    assert np.allclose(expand(constant, (20, 21, 22)), 3, atol=1e-5)
    assert apply_along(constant, linear_matrix(5, 8), 1).shape == (7, 5, 9)


def test_quantised_files_hold_what_their_type_can():
    image = np.array([0, 0.5, 1, 20], np.float32).reshape(1, 1, 4)
    whole = quantise(image, 3000, as_float=False)
    assert whole.dtype == np.int16
    assert whole.ravel().tolist() == [0, 1500, 3000, 32767]
    assert quantise(image, 3000, as_float=True).dtype == np.float32


def test_settings_file_is_checked(tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text("lesions: {count_max: 3}\n")
    assert load_settings(file).lesions.count_max == 3
    for text in ("lesions: {count_maximum: 3}\n", "lesions: {rim_mm: [5, 1]}\n", "anatomy: [1\n"):
        file.write_text(text)
        with pytest.raises(UsageError, match="cohort settings"):
            load_settings(file)
    for text in ("lesions:\n", "lesions: none\n", "artefacts: [1]\n", "[1, 2]\n"):
        file.write_text(text)
        said = []
        for system in TRAINING_SYSTEMS.values():
            with pytest.raises(UsageError, match="cohort settings") as caught:
                load_settings(file, defaults=system.cohort_defaults)
            said.append(str(caught.value))
        assert said[0] == said[1]
    with pytest.raises(UsageError, match="cohort settings"):
        load_settings(tmp_path / "absent.yaml")
