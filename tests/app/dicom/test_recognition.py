"""Which series is which: protocols of several vendors and languages, and files that the libraries ship."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pydicom
import pytest

from dicom_study_support import CT, LOCALISER, T1C, T1N, T2F, T2W, Sequence, small, times, write_sequence, write_study
from metseg.dicom.acquisition import KEYWORDS, find_contrast, fold_words
from metseg.dicom.import_case import recognise_study
from metseg.dicom.recognition import recognise
from metseg.dicom.study import read_study
from metseg.errors import InputError

PROTOCOLS = {
    "siemens mprage": ("t1c", times(2.26, 1900, 900, kind=["GR", "IR"], acquired="3D"), "t1_mprage_sag_p2_iso_KM"),
    "siemens vibe": ("t1c", times(2.4, 5.5, kind="GR", acquired="3D"), "t1_vibe_fs_tra_post Gd"),
    "siemens space t1": ("t1c", times(20, 700, kind="SE", acquired="3D"), "t1_spc_sag_dark-blood +C"),
    "siemens se": ("t1n", times(9, 500), "t1_se_tra_nativ"),
    "siemens tse": ("t2w", times(99, 5500), "t2_tse_tra_512"),
    "siemens dark fluid": ("t2f", times(387, 5000, 1800, kind=["SE", "IR"], acquired="3D"), "t2_spc_da-fl_sag"),
    "ge bravo": ("t1c", times(3.2, 8.2, 450, kind="GR", acquired="3D"), "Ax 3D T1 BRAVO + C"),
    "ge spgr": ("t1n", times(3, 9, kind="GR", acquired="3D"), "SAG FSPGR PRE"),
    "ge t1 flair": ("t1c", times(24, 2500, 860, kind=["SE", "IR"]), "AX T1 FLAIR POST"),
    "ge t2 propeller": ("t2w", times(100, 4800, kind="RM"), "Ax T2 PROPELLER"),
    "ge cube flair": ("t2f", times(117, 7600, 2100, kind="SE", acquired="3D"), "Sag CUBE T2 FLAIR"),
    "philips tfe": ("t1c", times(3.8, 8.1, kind="GR", acquired="3D"), "sT1W_3D_TFE GADO"),
    "philips se": ("t1n", times(15, 600), "T1W_SE sans injection"),
    "philips drive": ("t2w", times(80, 3000), "T2W_TSE DRIVE"),
    "philips flair": ("t2f", times(140, 11000, 2800, kind=["SE", "IR"]), "FLAIR_longTR"),
    "philips flair without ti": ("t2f", times(125, 11000), "FLAIR tra"),
    "french": ("t1c", times(10, 550), "AX T1 APRES INJECTION"),
    "spanish": ("t1c", times(10, 550), "T1 AXIAL CON CONTRASTE"),
    "spanish plain": ("t1n", times(10, 550), "T1 SAG SIN CONTRASTE"),
    "italian": ("t1c", times(10, 550), "SE T1 ax mdc"),
    "german": ("t1n", times(10, 550), "T1 tra ohne KM"),
    "dutch": ("t1n", times(10, 550), "T1 TRA zonder contrast"),
    "chinese": ("t1c", times(10, 550, SpecificCharacterSet="ISO_IR 192"), "T1WI 增强"),
    "agent's tag alone": ("t1c", times(10, 550, ContrastBolusAgent="GADOVIST"), "T1 AXIAL"),
    "agent carried on": ("t1n", times(10, 550, ContrastBolusAgent="GADOVIST"), "T1 AXIAL PRE"),
    "no times": ("t2f", {"SeriesDescription": ""}, "3D FLAIR"),
    "ct": ("ct", {"Modality": "CT"}, "RT PLAN 1mm"),
}


def dress(name: str) -> Sequence:
    """A small series with a protocol's tags."""
    modality, tags, description = PROTOCOLS[name]
    image = modality if modality == "ct" else "t1c"
    shape = (12, 12, 62)
    return Sequence(image, {**tags, "SeriesDescription": description}, (15, 15, 3), shape, noise=0.0)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_protocol_is_recognised(tmp_path, name):
    write_sequence(tmp_path, dress(name))
    (verdict,) = recognise(read_study(tmp_path, KEYWORDS)).verdicts
    assert verdict.modality == PROTOCOLS[name][0], verdict.reason
    assert verdict.reason


LEFT_OUT = {
    "localiser": LOCALISER,
    "diffusion": T2W.but(SeriesDescription="ep2d_diff_3scan_trace_p2", ScanningSequence="EP"),
    "adc": T2W.but(SeriesDescription="ADC", ImageType=["DERIVED", "PRIMARY", "DIFFUSION", "ADC"]),
    "perfusion": T2W.but(SeriesDescription="ep2d_perf"),
    "swi": T1N.but(SeriesDescription="t2_swi_tra", EchoTime=20, RepetitionTime=27, ScanningSequence="GR"),
    "t2 star": T1N.but(SeriesDescription="T2* GRE", EchoTime=20, RepetitionTime=600, ScanningSequence="GR"),
    "tof": T1N.but(SeriesDescription="TOF 3D multi-slab", EchoTime=3.4, RepetitionTime=21, ScanningSequence="GR"),
    "angiography": T1N.but(AngioFlag="Y", SeriesDescription="FL3D"),
    "proton density": T2W.but(SeriesDescription="PD TSE", EchoTime=12),
    "stir": T2W.but(SeriesDescription="TIR", InversionTime=180),
    "mip": T1C.but(ImageType=["DERIVED", "SECONDARY", "MIP"]),
    "spine": T2W.but(SeriesDescription="T2 TSE sag C-Spine"),
    "knee": T2W.but(BodyPartExamined="KNEE"),
    "phase": T1C.but(ImageType=["ORIGINAL", "PRIMARY", "P", "ND"]),
    "mosaic": T2W.but(ImageType=["ORIGINAL", "PRIMARY", "M", "MOSAIC"], SeriesDescription="x"),
    "burnt-in": T2W.but(BurnedInAnnotation="YES"),
    "slab": replace(T2W, spacing_mm=(15, 15, 0.6)),
    "pet": T2W.but(Modality="PT"),
}


@pytest.mark.parametrize("name", LEFT_OUT)
def test_other_series_are_left_out_with_a_reason(tmp_path, name):
    sequence = LEFT_OUT[name]
    write_sequence(tmp_path / "a", small(sequence) if name != "slab" else replace(sequence, shape=(12, 12, 60)))
    write_sequence(tmp_path / "b", small(T1C), number=2)
    odd, good = recognise_study(tmp_path).verdicts
    assert odd.modality is None
    assert odd.reason
    assert good.is_chosen


def test_a_usual_study_has_one_series_for_each_modality(tmp_path):
    usual = {name: small(item) for name, item in {"t1n": T1N, "t2f": T2F, "ct": CT, "t1c": T1C, "t2w": T2W}.items()}
    uids = write_study(tmp_path, usual)
    found = recognise_study(tmp_path)
    assert found.problem is None
    assert {name: item.stack.name for name, item in found.chosen.items()} == uids


def test_the_volume_is_preferred_to_thick_slices(tmp_path):
    thick = small(T1C).but(
        MRAcquisitionType="2D", InversionTime=None, RepetitionTime=600, EchoTime=10, ScanningSequence="SE"
    )
    uids = write_study(
        tmp_path, {"thick": replace(thick, spacing_mm=(15, 15, 5), shape=(12, 12, 30)), "t1c": small(T1C)}
    )
    found = recognise_study(tmp_path)
    assert found.chosen["t1c"].stack.name == uids["t1c"]
    assert any("fits better" in item.reason for item in found.verdicts)


def test_two_that_fit_equally_are_asked_for(tmp_path):
    uids = write_study(tmp_path, {"one": small(T1C), "two": small(T1C), "t1n": small(T1N)})
    problem = recognise_study(tmp_path).problem
    assert "t1c: series 1, 2 fit equally" in str(problem)
    assert f"--series t1c={uids['two']}" in problem.hint
    found = recognise_study(tmp_path, {"t1c": uids["two"]})
    assert found.problem is None
    assert {name: item.stack.name for name, item in found.chosen.items()} == {"t1c": uids["two"], "t1n": uids["t1n"]}


def test_a_named_series_counts_whatever_the_rules_say(tmp_path):
    sequences = {"odd": small(T2W).but(SeriesDescription="study 7", BodyPartExamined="NECK"), "t1": small(T1N)}
    uids = write_study(tmp_path, {**sequences, "plain": small(T1N).but(SeriesDescription="T1 a")})
    found = recognise_study(tmp_path, {"t1c": uids["odd"]})
    assert found.chosen["t1c"].stack.name == uids["odd"]
    assert found.chosen["t1n"].stack.name == uids["t1"]


def test_a_t1_that_says_nothing_of_contrast_is_t1n_beside_a_t1c(tmp_path):
    uids = write_study(tmp_path, {"t1": small(T1N).but(SeriesDescription="T1 TRA"), "t1c": small(T1C)})
    chosen = recognise_study(tmp_path).chosen
    assert chosen["t1n"].stack.name == uids["t1"]
    assert "series 2 is t1c" in chosen["t1n"].reason


def test_a_sequence_of_another_day_is_not_taken_but_a_ct_is(tmp_path):
    write_study(tmp_path / "today", {"t1c": small(T1C)})
    write_study(tmp_path / "before", {"t2w": small(T2W), "ct": small(CT)})
    found = recognise_study(tmp_path)
    assert set(found.chosen) == {"t1c", "ct"}
    assert any("of another study" in item.reason for item in found.verdicts)


def test_volumes_in_one_series_are_told_apart(tmp_path):
    echoes = small(T2W)
    series = pydicom.uid.generate_uid()
    for number, (te, description) in enumerate([(12, "PD+T2"), (95, "PD+T2")]):
        write_sequence(tmp_path / str(number), echoes.but(EchoTime=te, SeriesDescription=description))
    for number, path in enumerate(sorted(tmp_path.rglob("IM*"))):
        data = pydicom.dcmread(path)
        data.SeriesInstanceUID, data.StudyInstanceUID = series, "1.2.3"
        data.save_as(path)
        assert number < 200
    found = recognise(read_study(tmp_path, KEYWORDS))
    assert [item.stack.name for item in found.verdicts] == [f"{series}/1", f"{series}/2"]
    assert [item.modality for item in found.verdicts] == [None, "t2w"]


@pytest.mark.parametrize(
    ("words", "contrast"),
    [
        ("T1 PRE OP +C", "with"),
        ("T1 MPRAGE POST-OP", "unknown"),
        ("T1 tra nach KM", "with"),
        ("T1 tra nach OP", "unknown"),
        ("T1 Posterior fossa", "unknown"),
        ("AX T1 W/O", "without"),
        ("t1_mprage_c+", "with"),
        ("T1 COR", "unknown"),
        ("T1CE", "with"),
        ("SAG T1 BRAVO", "unknown"),
        ("T1 po kontraście", "with"),
        ("T1 bez kontrastu", "without"),
        ("T1 APRÈS INJECTION", "with"),
        ("T1 avant injection", "without"),
    ],
)
def test_what_descriptions_say_of_contrast(words, contrast):
    data = pydicom.Dataset()
    data.SeriesDescription = words
    assert find_contrast(data, fold_words(words), "")[0] == contrast


def test_words_are_folded():
    assert fold_words("T1_MPRAGE-Sag (après injection) +C") == "t1 mprage sag apres injection +c"
    assert fold_words(["A", "B"]) == "a b"
    assert fold_words(None) == ""


# ---- files of scanners, as the libraries ship them


DATA = Path(pydicom.__file__).parent / "data/test_files"

SHIPPED = {
    "CT_small.dcm": ("few-slices", "CT"),
    "MR_small.dcm": ("derived", "MR"),
    "MR_small_RLE.dcm": ("derived", "MR"),
    "MR_small_jp2klossless.dcm": ("derived", "MR"),
    "examples_overlay.dcm": ("body-part", "MR"),
    "J2K_pixelrep_mismatch.dcm": ("few-slices", "CT"),
    "693_J2KI.dcm": ("few-slices", "CT"),
    "examples_ybr_color.dcm": ("other", "US"),
    "rtdose.dcm": ("other", "RTDOSE"),
    "liver_1frame.dcm": ("other", "SEG"),
    "JPEG2000.dcm": ("other", "NM"),
    "waveform_ecg.dcm": ("other", "ECG"),
}


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_file_is_left_out_with_its_reason(name):
    if not (DATA / name).exists():
        pytest.skip(f"this pydicom does not ship {name}")
    found = recognise_study(DATA / name)
    (verdict,) = found.verdicts
    assert (verdict.rule, verdict.seen.modality) == SHIPPED[name], verdict.reason
    assert "no t1c" in str(found.problem)


@pytest.mark.parametrize(
    ("folder", "rules"),
    [
        ("77654033", {"other": 3, "no-volume": 1}),
        ("98892001", {"localiser": 2, "few-slices": 1}),
        ("98892003", {"localiser": 10, "angiography": 7}),
    ],
)
def test_scanners_own_studies_are_sorted(folder, rules):
    path = DATA / "dicomdirtests" / folder
    if not path.exists():
        pytest.skip(f"this pydicom does not ship {folder}")
    assert Counter(item.rule for item in recognise_study(path).verdicts) == rules


def test_scanners_own_patients_are_told_apart():
    with pytest.raises(InputError, match="images of 3 patients"):
        recognise_study(DATA / "dicomdirtests")
