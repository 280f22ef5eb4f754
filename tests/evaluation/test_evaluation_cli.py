"""`python -m evaluation` as a user meets it: folders, messages, exit codes, files."""

import csv
import gzip
import json
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from evaluation.__main__ import main

GOLDEN = Path(__file__).parents[1] / "golden"
SCORES = json.loads((GOLDEN / "scores.json").read_text())
CASES = ("few", "one", "with-rc")


@pytest.fixture
def run(monkeypatch, capsys):
    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["evaluation", *map(str, arguments)])
        code = main()
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def folders(tmp_path):
    references, predictions = tmp_path / "references", tmp_path / "predictions"
    references.mkdir()
    predictions.mkdir()
    for case in CASES:
        shutil.copy(GOLDEN / "labelmaps" / f"{case}-ref.nii.gz", references / f"{case}-seg.nii.gz")
        shutil.copy(GOLDEN / "labelmaps" / f"{case}-pred.nii.gz", predictions / f"{case}.nii.gz")
    return references, predictions


@pytest.fixture
def score(run, folders):
    def call(*more, protocol="brats2023", references=folders[0], predictions=folders[1]):
        return run(
            "score", "--protocol", protocol, "--reference-path", references, "--prediction-path", predictions, *more
        )

    return call


def write_like(path, values, affine=None):
    template = nib.load(path)
    nib.Nifti1Image(values, template.affine if affine is None else affine).to_filename(path)


def read(path):
    return np.asanyarray(nib.load(path).dataobj)


@pytest.mark.parametrize("protocol", ["brats2023", "brats2026"])
def test_writes_what_the_official_program_wrote(score, tmp_path, protocol):
    code, out, err = score("--output", tmp_path / "new" / "scores.json", protocol=protocol)
    assert (code, err) == (0, "")
    assert f"{protocol}: 3 cases" in out
    found = json.loads((tmp_path / "new" / "scores.json").read_text())
    assert list(found) == sorted(CASES)
    for case in CASES:
        assert found[case].keys() == SCORES[protocol][case].keys()
    if protocol == "brats2026":
        assert found["few"]["all_instance_f1_rc"] is None
    else:
        assert found["few"]["WT"] == pytest.approx(SCORES[protocol]["few"]["WT"])


def test_nested_references_and_parallel_jobs_give_the_same_files(score, folders, tmp_path):
    nested = tmp_path / "nested"
    for file in folders[0].iterdir():
        folder = nested / file.name.removesuffix("-seg.nii.gz")
        folder.mkdir(parents=True)
        shutil.copy(file, folder / file.name)
        shutil.copy(file, folder / file.name.replace("-seg", "-t1c"))
    outputs = []
    for name, more in (("a", {}), ("b", {"references": nested})):
        files = [tmp_path / f"{name}.{kind}" for kind in ("json", "csv", "lesions.csv")]
        jobs = ("--jobs", "2") if more else ()
        code, out, _ = score("--output", files[0], "--csv", files[1], "--lesions", files[2], *jobs, **more)
        assert code == 0
        outputs.append([out, *(file.read_bytes() for file in files)])
    assert outputs[0] == outputs[1]


def test_tables(score, folders, tmp_path):
    score("--csv", tmp_path / "t.csv", "--lesions", tmp_path / "l.csv")
    rows = list(csv.DictReader((tmp_path / "t.csv").read_text().splitlines()))
    assert [(row["case_id"], row["region"]) for row in rows[:4]] == [
        ("few", "WT"), ("few", "TC"), ("few", "ET"), ("one", "WT"),
    ]  # fmt: skip
    assert float(rows[0]["Legacy_Dice"]) == pytest.approx(SCORES["brats2023"]["few"]["WT"]["Legacy_Dice"])
    lesions = [row for row in csv.DictReader((tmp_path / "l.csv").read_text().splitlines()) if row["case_id"] == "one"]
    whole = [row for row in lesions if row["region"] == "WT"]
    assert [row["kind"] for row in whole] == ["lesion"] + ["false_positive"] * 4
    reference = nib.load(folders[0] / "one-seg.nii.gz")
    centre = np.argwhere(np.asanyarray(reference.dataobj) > 0).mean(axis=0)
    world = nib.affines.apply_affine(reference.affine, centre)
    for axis, voxel, millimetre in zip("xyz", centre, world, strict=True):
        assert float(whole[0][f"centroid_{axis}_voxel"]) == pytest.approx(voxel, abs=0.006)
        assert float(whole[0][f"centroid_{axis}_mm"]) == pytest.approx(millimetre, abs=0.006)
    assert whole[0]["volume_mm3"] == "31"


def test_one_pair_of_files(score, folders):
    code, out, _ = score(references=folders[0] / "one-seg.nii.gz", predictions=folders[1] / "few.nii.gz")
    assert code == 0
    assert "1 case" in out


@pytest.mark.parametrize(("protocol", "worst"), [("brats2023", 374), ("brats2026", 373)])
def test_missing_and_unknown_predictions_are_listed(score, folders, tmp_path, protocol, worst):
    (folders[1] / "few.nii.gz").rename(folders[1] / "stranger.nii.gz")
    (folders[1] / "._one.nii.gz").write_bytes(b"a trace of another file system")
    code, _, err = score("--output", tmp_path / "s.json", protocol=protocol)
    assert code == 0
    assert "1 prediction(s) missing, scored as such: few" in err
    assert "1 prediction(s) without reference, left out: stranger.nii.gz" in err
    found = json.loads((tmp_path / "s.json").read_text())
    assert sorted(found) == sorted(CASES)
    few = found["few"]
    assert (few["ET"]["LesionWise_Score_HD95"] if protocol == "brats2023" else few["lesionwise_hd95_mean_et"]) == worst
    assert score("--strict", protocol=protocol)[0] == 10


def test_every_wrong_grid_is_named_with_what_differs(score, folders, tmp_path):
    one, few = folders[1] / "one.nii.gz", folders[1] / "few.nii.gz"
    write_like(one, read(one)[:-1], np.diag([0.5, 1, 2, 1]))
    write_like(few, read(few), nib.load(few).affine @ np.diag([-1, 1, 1, 1]))
    code, _, err = score("--output", tmp_path / "s.json")
    assert code == 3
    assert "2 of 3 cases can't be scored" in err
    for name in ("one-seg.nii.gz", "one.nii.gz", "few-seg.nii.gz", "few.nii.gz"):
        assert name in err
    assert "shape (96, 96, 64) against (95, 96, 64)" in err
    assert "spacing 1 x 1 x 1 mm against 0.5 x 1 x 2 mm" in err
    assert "orientation LPS against RPS" in err
    assert not (tmp_path / "s.json").exists()


def test_another_origin_is_a_warning(score, folders, caplog):
    affine = nib.load(folders[1] / "one.nii.gz").affine.copy()
    affine[0, 3] += 5
    write_like(folders[1] / "one.nii.gz", read(folders[1] / "one.nii.gz"), affine)
    assert score()[0] == 0
    assert "origin 5.0 voxels away" in caplog.text


@pytest.mark.parametrize("jobs", [(), ("--jobs", "2")], ids=["one process", "two"])
def test_float_maps_of_whole_numbers_are_accepted_and_others_listed(score, folders, tmp_path, jobs):
    path = folders[1] / "one.nii.gz"
    score("--output", tmp_path / "a.json")
    write_like(path, read(path).astype(np.float32))
    assert score("--output", tmp_path / "b.json")[0] == 0
    assert (tmp_path / "a.json").read_text() == (tmp_path / "b.json").read_text()
    values = read(path).copy()
    values[0, 0, :3] = [5, -1, 0.25]
    write_like(path, values)
    code, _, err = score(*jobs)
    assert code == 3
    assert "one.nii.gz: holds -1, 0.25, 5, expected whole numbers from 0 to 4" in err


def test_broken_files_are_input_errors(score, folders):
    path = folders[1] / "one.nii.gz"
    path.write_bytes(path.read_bytes()[:1500])
    code, _, err = score()
    assert code == 3
    assert "one.nii.gz" in err
    path.write_bytes(b"no image")
    assert score()[0] == 3


def with_header(path, **fields):
    """Changes header fields and leaves the voxels as they are; `dim=(0, 9)` sets one of an array."""
    content = gzip.decompress(path.read_bytes())
    header = np.frombuffer(content[:348], dtype=nib.nifti1.header_dtype).copy()
    for name, value in fields.items():
        if isinstance(value, tuple):
            header[name][0, value[0]] = value[1]
        else:
            header[name] = value
    path.write_bytes(gzip.compress(header.tobytes() + content[348:]))


DAMAGES = [
    {"datatype": 999},
    {"dim": (0, 9)},
    {"dim": (0, 0)},
    {"vox_offset": 100},
    {"vox_offset": np.inf},
    {"scl_slope": 1, "scl_inter": np.nan},
    {"sform_code": 1, "srow_x": (0, np.nan)},
    {"sform_code": 1, "srow_x": 0, "srow_y": 0, "srow_z": 0},
    {"pixdim": (2, np.nan)},
]


@pytest.mark.parametrize("fields", DAMAGES, ids=str)
def test_damaged_headers_are_input_errors(score, folders, tmp_path, fields):
    for name in ("one", "few"):
        with_header(folders[1] / f"{name}.nii.gz", **fields)
    code, _, err = score("--output", tmp_path / "s.json")
    assert code == 3
    assert "2 of 3 cases can't be scored" in err
    assert all(str(folders[1] / f"{name}.nii.gz") in err for name in ("one", "few"))
    assert not (tmp_path / "s.json").exists()


@pytest.mark.parametrize("side", [0, -1], ids=["zero", "negative"])
def test_voxel_sizes_are_mended_as_the_official_reader_does(score, folders, tmp_path, side):
    score("--output", tmp_path / "a.json", protocol="brats2026")
    with_header(folders[0] / "one-seg.nii.gz", pixdim=(2, side))
    assert score("--output", tmp_path / "b.json", protocol="brats2026")[0] == 0
    assert (tmp_path / "a.json").read_text() == (tmp_path / "b.json").read_text()


def test_a_damaged_reference_is_named_where_its_prediction_is_missing(score, folders):
    (folders[1] / "one.nii.gz").unlink()
    with_header(folders[0] / "one-seg.nii.gz", pixdim=(1, np.nan))
    code, _, err = score(protocol="brats2026")
    assert (code, "one-seg.nii.gz" in err) == (3, True)


def test_exit_codes_of_usage_input_and_output(run, score, folders, tmp_path):
    assert run("score", "--protocol", "brats1999")[0] == 2
    assert run("score", "--protocol", "brats2023")[0] == 2
    assert score("--challenge", "XYZ")[0] == 2
    assert score("--challenge", "GLI", protocol="brats2026")[0] == 2
    assert score("--true-millimetres")[0] == 2
    assert score(references=tmp_path / "nowhere")[0] == 3
    code, _, err = score(references=tmp_path)
    assert (code, "expected <ID>-seg.nii.gz or <ID>/<ID>-seg.nii.gz" in err) == (3, True)
    code, _, err = score(predictions=folders[0])
    assert (code, "few.nii.gz" in err) == (3, True)
    (folders[0] / "few").mkdir()
    shutil.copy(folders[0] / "few-seg.nii.gz", folders[0] / "few")
    code, _, err = score()
    assert (code, "few occurs twice" in err) == (3, True)
    shutil.rmtree(folders[0] / "few")
    assert score("--output", folders[0] / "few-seg.nii.gz" / "s.json")[0] == 6


def test_glioma_parameters_reach_the_scores(score, tmp_path):
    score("--challenge", "GLI", "--output", tmp_path / "s.json")
    assert json.loads((tmp_path / "s.json").read_text())["one"]["WT"]["Num_TP"] == 0  # 31 mm3 are under 50


@pytest.mark.parametrize("command", [("compare",), ("score", "--compare")])
def test_compare(run, score, folders, tmp_path, command):
    score("--output", tmp_path / "a.json")
    shutil.copy(folders[0] / "one-seg.nii.gz", folders[1] / "one.nii.gz")
    (folders[0] / "few-seg.nii.gz").unlink()
    score("--output", tmp_path / "b.json")
    code, out, err = run(*command, tmp_path / "a.json", tmp_path / "b.json")
    assert code == 0
    assert "only in A, left out: few" in err
    line = next(line for line in out.splitlines() if "WT" in line and "lesion-wise Dice" in line)
    assert "+0.400" in line  # from 0.2 to 1 in one of two cases
    assert "1 / 1 / 0" in line


def test_compare_needs_files_of_one_protocol(run, score, tmp_path):
    score("--output", tmp_path / "a.json")
    score("--output", tmp_path / "b.json", protocol="brats2026")
    code, _, err = run("compare", tmp_path / "a.json", tmp_path / "b.json")
    assert (code, "no common columns" in err) == (3, True)
    (tmp_path / "c.json").write_text('{"x": 1}')
    assert run("compare", tmp_path / "a.json", tmp_path / "c.json")[0] == 3


def test_runs_as_a_module_without_torch():
    """Scoring is used where no network is: importing it must not cost seconds."""
    script = "import sys, evaluation.__main__; sys.exit('torch' in sys.modules or 'monai' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
    done = subprocess.run([sys.executable, "-m", "evaluation", "score", "--help"], capture_output=True, check=True)
    assert b"--reference-path" in done.stdout


def test_sizes_are_printed_and_drawn(score, tmp_path):
    code, out, _ = score("--by-size", "--size-plot", tmp_path / "new" / "sizes.png")
    assert code == 0
    assert "false positives a case" in out
    assert "100-1000" in out
    assert (tmp_path / "new" / "sizes.png").stat().st_size > 1000


def test_a_size_plot_of_an_unknown_format_is_refused_before_scoring(score, tmp_path):
    for name in ("sizes.abc", "sizes"):
        code, _, err = score("--output", tmp_path / "s.json", "--size-plot", tmp_path / name)
        assert (code, f"--size-plot {tmp_path / name}" in err) == (2, True)
    assert list(tmp_path.glob("s*")) == []


# ---- what label 4 means


def rewrite(path, change):
    write_like(path, change(read(path).astype(np.uint8)))


def as_of_2021(labels):
    """ET as 4; a resection cavity had no label."""
    return np.array([0, 1, 2, 4, 0], np.uint8)[labels]


def without_et(labels):
    return np.where(labels == 3, 0, labels).astype(np.uint8)


@pytest.mark.parametrize("protocol", ["brats2023", "brats2026"])
@pytest.mark.parametrize("of_2021", [(0,), (1,), (0, 1)], ids=["references", "predictions", "both"])
def test_labels_of_2021_are_asked_about_and_score_as_todays(score, folders, tmp_path, protocol, of_2021):
    for folder in folders:
        for path in folder.iterdir():
            rewrite(path, lambda labels: np.where(labels == 4, 0, labels).astype(np.uint8))
    assert score("--output", tmp_path / "today.json", protocol=protocol)[0] == 0
    for number in of_2021:
        for path in folders[number].iterdir():
            rewrite(path, as_of_2021)
    code, out, err = score("--output", tmp_path / "scores.json", protocol=protocol)
    assert (code, out) == (3, "")
    assert err.startswith(f"error: {('references', 'predictions')[of_2021[0]]}: ")
    assert "enhancing tumour in challenges up to 2021, a resection cavity" in err
    assert "--labels brats2021" in err
    assert not (tmp_path / "scores.json").exists()
    options = ("--labels", "brats2021", "--csv", tmp_path / "scores.csv", "--output", tmp_path / "scores.json")
    code, out, err = score(*options, protocol=protocol)
    assert (code, err) == (0, "")
    assert "3 cases, labels brats2021" in out
    assert (tmp_path / "scores.json").read_bytes() == (tmp_path / "today.json").read_bytes()
    with (tmp_path / "scores.csv").open(newline="") as file:
        assert {row["labels"] for row in csv.DictReader(file)} == {"brats2021"}


def test_a_missing_enhancing_tumour_of_2021_scores_0(score, folders, tmp_path):
    for folder, change in zip(folders, (as_of_2021, without_et), strict=True):
        for path in folder.iterdir():
            rewrite(path, change)
    for path in folders[1].iterdir():
        rewrite(path, lambda labels: np.where(labels == 4, 0, labels).astype(np.uint8))
    assert score()[0] == 3
    assert score("--labels", "brats2021", "--output", tmp_path / "scores.json")[0] == 0
    assert json.loads((tmp_path / "scores.json").read_text())["few"]["ET"]["LesionWise_Score_Dice"] == 0


def test_a_cavity_without_enhancement_is_asked_about_and_stays_one(score, folders, tmp_path):
    for folder in folders:
        for path in folder.iterdir():
            rewrite(path, without_et)
    code, _, err = score("--jobs", "2", protocol="brats2026")
    assert code == 3
    assert "1 of 3 label maps hold 4 (with-rc-seg.nii.gz), none 3" in err
    code, _, err = score("--labels", "brats2025", "--output", tmp_path / "scores.json", protocol="brats2026")
    assert (code, err) == (0, "")
    scores = json.loads((tmp_path / "scores.json").read_text())
    expected = SCORES["brats2026"]["with-rc"]
    assert {key: value for key, value in scores["with-rc"].items() if key.endswith("_rc")} == pytest.approx(
        {key: value for key, value in expected.items() if key.endswith("_rc")}, nan_ok=True
    )


def test_a_3_elsewhere_in_the_set_makes_4_a_cavity(score, folders):
    rewrite(folders[0] / "with-rc-seg.nii.gz", without_et)
    assert score()[0] == 0


def test_a_file_with_3_and_4_contradicts_2021(score):
    code, _, err = score("--labels", "brats2021")
    assert code == 3
    assert "with-rc-seg.nii.gz: holds labels 3 and 4, but brats2021 has no 3" in err


def test_where_every_label_is_a_metastasis_nothing_is_asked(score, folders):
    for folder in folders:
        for path in folder.iterdir():
            rewrite(path, as_of_2021)
    assert score(protocol="hu2019")[0] == 0


# ---- files that are odd or damaged


@pytest.mark.parametrize("jobs", [1, 2])
def test_nearly_whole_labels_score_as_whole_ones_with_a_warning(score, folders, tmp_path, caplog, jobs):
    assert score("--output", tmp_path / "whole.json")[0] == 0
    for path in folders[1].iterdir():
        write_like(path, read(path) * 0.9999999)
    caplog.clear()
    assert score("--output", tmp_path / "near.json", "--jobs", jobs)[0] == 0
    assert (tmp_path / "near.json").read_bytes() == (tmp_path / "whole.json").read_bytes()
    if jobs == 1:
        assert ["rounded" in record.getMessage() for record in caplog.records] == [True] * len(CASES)


def test_a_plain_file_with_a_compressed_name_is_read(score, folders, tmp_path):
    assert score("--output", tmp_path / "a.json")[0] == 0
    for folder in folders:
        path = folder / ("few-seg.nii.gz" if folder == folders[0] else "few.nii.gz")
        path.write_bytes(gzip.decompress(path.read_bytes()))
    assert score("--output", tmp_path / "b.json")[0] == 0
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def cut(content):
    return content[:-6]


def wrong_checksum(content):
    return content[:-6] + bytes([content[-6] ^ 255]) + content[-5:]


def cut_plain(content):
    return gzip.decompress(content)[:-6]


@pytest.mark.parametrize("damage", [cut, wrong_checksum, cut_plain])
@pytest.mark.parametrize("which", [0, 1], ids=["reference", "prediction"])
def test_damaged_label_maps_are_refused(score, folders, tmp_path, damage, which):
    path = folders[which] / ("few-seg.nii.gz", "few.nii.gz")[which]
    path.write_bytes(damage(path.read_bytes()))
    code, out, err = score("--output", tmp_path / "scores.json")
    assert (code, out) == (3, "")
    assert path.name in err
    assert "truncated or corrupt" in err or "truncated" in err
    assert not (tmp_path / "scores.json").exists()


def test_references_may_have_the_names_of_earlier_challenges(folders, score):
    expected = score()[1]
    for file in sorted(folders[0].glob("*-seg.nii.gz")):
        case_id = file.name.removesuffix("-seg.nii.gz")
        file.rename(folders[0] / f"{case_id.upper()}_SEG.NII.GZ")
    code, out, _ = score()
    assert code == 0
    assert out.lower() == expected.lower()
    one = next(folders[0].iterdir())
    (folders[0] / one.name.lower()).write_bytes(one.read_bytes())
    code, _, err = score()
    assert (code, "occurs twice" in err) == (3, True)
