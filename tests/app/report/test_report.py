import csv
import io
import json
import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from metseg.__main__ import run
from metseg.errors import ExitCode, InputError
from metseg.findings import WORDS, Finding, blank_note, count_notes, edge_notes
from metseg.labels import ET, RC, SNFH
from metseg.report.case_from_files import find_label_map
from metseg.report.case_report import CaseReport
from metseg.report.case_store import locate_case, read_case_report, write_case_report
from metseg.report.describe import describe_unmeasured
from metseg.report.earlier_runs import hashes_of_bundles
from metseg.report.folder_report import report_label_maps
from metseg.report.page import DASH, show_mm3
from metseg.report.report_files import CASES_TABLE, LESIONS_TABLE, PAGE_FILE, RUN_FILE
from metseg.report.run_json import BundleFacts, DeviceFacts, RunJson
from metseg.report.tables import format_cases, name_case_columns, name_lesion_columns
from metseg.report.viewer import collect_cases, find_paths, render_viewer
from metseg.run.record import CaseRecord
from metseg.systems import BRATS, RADIOSURGERY
from report_support import lesion_map, phantom, write_case, write_cohort, write_labels


def report(data, maps, target, *options):
    return run(["report", f"--data-path={data}", f"--prediction-path={maps}", f"--report-dir={target}", *options])


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    data, maps = write_cohort(folder, 2)
    assert report(data, maps, folder / "r", f"--reference-path={maps}") == ExitCode.DONE
    return folder / "r"


def test_a_report_is_four_files_and_a_folder(made):
    assert sorted(path.name for path in made.iterdir()) == ["cases", CASES_TABLE, LESIONS_TABLE, PAGE_FILE, RUN_FILE]
    assert sorted(path.name for path in (made / "cases/c0").iterdir()) == ["case.json", "lesions.webp", "planes.webp"]


def test_the_tables_hold_what_was_measured(made):
    case, empty = rows_of(made / CASES_TABLE)
    assert (case["lesions_26connected_wt"], empty["lesions_26connected_wt"]) == ("2", "0")
    assert float(case["wt_volume_mm3"]) == 11**3 + 4**3
    assert (case["reference_lesions_26connected_wt"], case["measurable_lesions_from_10_mm"]) == ("2", "1")
    large, small = rows_of(made / LESIONS_TABLE)
    assert [large["lesion_26connected_wt"], small["lesion_26connected_wt"]] == ["1", "2"]
    assert float(large["tc_volume_mm3"]) == 10**3
    assert float(large["et_volume_mm3"]) == 10**3 - 1
    # LPS on disk: voxel (18..28, 20..30, 14..24) lies at R -18 - 5, A 239 - 25, S 19.
    assert [float(large[f"centroid_{axis}_mm"]) for axis in "ras"] == [-23, 214, 19]
    assert [int(large[f"box_last_{axis}_voxel"]) for axis in "xyz"] == [28, 30, 24]
    assert large["touches_brain_edge"] in {"yes", "no"}
    assert large["vote_share"] == ""


def test_every_column_says_its_unit_or_is_a_count_or_a_word():
    units = re.compile(r"_(mm3|mm|s|mib|voxel|bits|wt|tc|members|share)$|^voxels$")
    words = {"case_id", "outcome", "members", "flags", "warnings", "error", "measurable_from_10_mm",
             "measurable_lesions_from_10_mm", "touches_brain_edge"}  # fmt: skip
    cases, lesions = name_case_columns(BRATS), name_lesion_columns(BRATS)
    assert [name for name in (*cases, *lesions) if not units.search(name) and name not in words] == []
    assert sum("26connected" in name for name in lesions) == 2


def test_the_run_file_keeps_its_schema_and_hashes(made):
    content = RunJson.model_validate_json((made / RUN_FILE).read_bytes())
    assert content.schema_version == "1.2"
    assert content.labels == {"1": "NETC", "2": "SNFH", "3": "ET", "4": "RC"}
    assert content.command == "report"
    assert [case.case_id for case in content.cases] == ["c0", "c1"]
    assert len(content.cases[0].input_sha256) == 4
    assert all(len(found) == 64 for found in content.cases[0].input_sha256.values())
    assert content.cases[1].flags[0].words == "no lesion found"


def test_every_key_of_the_run_file_is_documented(made):
    text = (Path(__file__).parents[3] / "docs" / "run-json.md").read_text()
    content = json.loads((made / RUN_FILE).read_text())
    keys = {*content, *content["cases"][0], *content["program"], *BundleFacts.model_fields, *DeviceFacts.model_fields}
    assert [key for key in sorted(keys) if f"`{key}`" not in text] == []


def test_flags_have_the_same_words_in_page_table_run_file_and_log(tmp_path, capsys):
    data, maps = write_cohort(tmp_path, 2)
    (data / "c1/c1-t2w.nii.gz").unlink()
    assert report(data, maps, tmp_path / "r") == ExitCode.DONE
    log = capsys.readouterr().err
    page = (tmp_path / "r" / PAGE_FILE).read_text()
    _, case = rows_of(tmp_path / "r" / CASES_TABLE)
    stated = [flag["words"] for flag in json.loads((tmp_path / "r" / RUN_FILE).read_text())["cases"][1]["flags"]]
    assert stated == ["missing t2w", WORDS["no-lesion"]]
    assert case["flags"] == "; ".join(stated)
    for words in stated:
        assert f">{words}</span>" in page
        assert words in log


def test_the_vocabulary():
    assert [flag.words for flag in (*count_notes(0), *count_notes(51), *edge_notes(1, 2), blank_note())] == [
        "no lesion found", "more than 50 lesions", "lesion at the brain's edge", "blank because failed",
    ]  # fmt: skip
    assert count_notes(50) == count_notes(1) == edge_notes(0, 3) == ()


def test_a_grid_that_is_not_1_mm_is_flagged(tmp_path):
    affine = np.diag([0.8, 0.8, 1.5, 1])
    write_case(tmp_path / "data", "c0", affine=affine)
    write_labels(tmp_path / "maps/c0.nii.gz", lesion_map(), affine)
    assert report(tmp_path / "data", tmp_path / "maps", tmp_path / "r") == ExitCode.DONE
    (case,) = rows_of(tmp_path / "r" / CASES_TABLE)
    assert "resampled grid" in case["flags"]


def test_missing_and_bad_label_maps_are_listed_not_fatal(tmp_path):
    data, maps = write_cohort(tmp_path, 5)
    (maps / "c1.nii.gz").unlink()
    (maps / "c2.nii.gz").write_bytes(b"nonsense")
    write_labels(maps / "c3.nii.gz", np.full((40, 48, 32), 9, dtype=np.uint8))
    write_labels(maps / "c4.nii.gz", lesion_map((20, 20, 20), boxes=((5, 5, 5, 4),)))
    assert report(data, maps, tmp_path / "r") == ExitCode.DONE
    cases = rows_of(tmp_path / "r" / CASES_TABLE)
    assert [case["outcome"] for case in cases] == ["present", "failed", "failed", "failed", "present"]
    assert [case["flags"].split("; ")[0] for case in cases[1:4]] == ["no label map"] * 3
    assert "holds 9" in cases[3]["error"]
    assert "grid is not t1c's" in cases[4]["warnings"]  # measured all the same
    assert cases[4]["lesions_26connected_wt"] == "1"


def test_label_maps_named_as_references_are_found(tmp_path):
    labels = lesion_map()
    for path in ("flat/c0.nii.gz", "suffix/c0-seg.nii.gz", "nested/c0/c0-seg.nii.gz", "plain/c0.nii"):
        write_labels(tmp_path / path, labels)
        folder = tmp_path / path.split("/")[0]
        assert find_label_map(folder, "c0") == tmp_path / path
    assert find_label_map(tmp_path / "flat", "c1") is None


def test_an_unreadable_image_costs_the_pictures_not_the_table(tmp_path):
    data, maps = write_cohort(tmp_path, 1)
    (data / "c0/c0-t1c.nii.gz").write_bytes(b"nonsense")
    assert report(data, maps, tmp_path / "r") == ExitCode.DONE
    (case,) = rows_of(tmp_path / "r" / CASES_TABLE)
    assert case["lesions_26connected_wt"] == "2"
    assert "no pictures" in case["warnings"]
    assert rows_of(tmp_path / "r" / LESIONS_TABLE)[0]["touches_brain_edge"] == ""


@pytest.mark.parametrize("target", [".", "deeper/report"])
def test_the_report_never_lies_inside_the_label_maps(tmp_path, target):
    data, maps = write_cohort(tmp_path, 1)
    assert report(data, maps, maps / target) == ExitCode.USAGE


def test_folders_that_are_not_there_are_input_errors(tmp_path):
    data, maps = write_cohort(tmp_path, 1)
    assert report(data, tmp_path / "none", tmp_path / "r") == ExitCode.INPUT
    assert report(tmp_path / "none", maps, tmp_path / "r") == ExitCode.INPUT
    assert report(data, maps, tmp_path / "r", f"--reference-path={tmp_path / 'none'}") == ExitCode.INPUT


HOSTILE = "<script>alert(1)</script> & \"quoted\" 'id' ü"


def test_names_are_only_text_on_the_page(tmp_path):
    name = HOSTILE.replace("/", "|")
    write_case(tmp_path / "data", name)
    write_labels(tmp_path / f"maps/{name}.nii.gz", lesion_map())
    assert report(tmp_path / "data", tmp_path / "maps", tmp_path / "r") == ExitCode.DONE
    page = (tmp_path / "r" / PAGE_FILE).read_text()
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page
    assert rows_of(tmp_path / "r" / CASES_TABLE)[0]["case_id"] == name


def test_a_name_that_is_not_unicode_is_escaped(tmp_path):
    name = b"caf\xe9".decode("utf-8", "surrogateescape")
    try:
        write_case(tmp_path / "data", name)
    except (OSError, UnicodeEncodeError):
        pytest.skip("this file system holds Unicode names only")
    write_labels(tmp_path / f"maps/{name}.nii.gz", lesion_map())
    assert report(tmp_path / "data", tmp_path / "maps", tmp_path / "r") == ExitCode.DONE
    assert read_case_report(tmp_path / "r", name).case_id == "caf\\udce9"


def test_the_page_is_self_contained_and_small_pictures_are_in_it(made):
    page = (made / PAGE_FILE).read_text()
    assert not re.search(r"""(?:src|href)=["'](?:https?:)?//""", page)
    assert page.count('src="data:image/webp;base64,') == 3
    assert 'src="cases/' not in page
    assert "default-src &#39;none&#39;" in page


def test_a_large_page_leaves_its_pictures_beside_it(tmp_path, monkeypatch):
    monkeypatch.setattr("metseg.report.report_files.MAX_PAGE_BYTES", 1000)
    name = "a b#%"
    write_case(tmp_path / "data", name)
    write_labels(tmp_path / f"maps/{name}.nii.gz", lesion_map())
    assert report(tmp_path / "data", tmp_path / "maps", tmp_path / "r") == ExitCode.DONE
    page = (tmp_path / "r" / PAGE_FILE).read_text()
    assert 'src="cases/a%20b%23%25/planes.webp"' in page
    assert 'loading="lazy"' in page
    assert "data:image/webp" not in page


def test_a_picture_that_fails_costs_the_picture(tmp_path, monkeypatch):
    data, maps = write_cohort(tmp_path, 1)

    def fail(_volumes, _lesions):
        raise RuntimeError("no ink")

    monkeypatch.setattr("metseg.report.describe.draw_planes", fail)
    assert report(data, maps, tmp_path / "r") == ExitCode.DONE
    (case,) = rows_of(tmp_path / "r" / CASES_TABLE)
    assert "no pictures: no ink" in case["warnings"]
    assert case["lesions_26connected_wt"] == "2"


def test_pieces_come_back_as_they_were(made):
    piece = read_case_report(made, "c0")
    assert piece is not None
    assert piece.lesions[0].voxels == 11**3
    assert piece.pictures == ("planes.webp", "lesions.webp")
    assert piece.reference.lesions == 2
    assert read_case_report(made, "nobody") is None


def test_a_damaged_piece_is_no_piece(tmp_path):
    folder = locate_case(tmp_path, "c0")
    folder.mkdir(parents=True)
    (folder / "case.json").write_text('{"record": 5}')
    assert read_case_report(tmp_path, "c0") is None


def test_the_cases_folder_may_be_reported_on_itself(tmp_path):
    folder = write_case(tmp_path / "data", "c0", images=phantom())
    write_labels(folder / "c0-seg.nii.gz", lesion_map())
    assert report(tmp_path / "data", tmp_path / "data", tmp_path / "r") == ExitCode.DONE
    assert rows_of(tmp_path / "r" / CASES_TABLE)[0]["lesions_26connected_wt"] == "2"


def test_what_does_not_exist_is_not_zero(tmp_path):
    data, maps = write_cohort(tmp_path, 3)
    labels = lesion_map()
    labels[labels > 0] = SNFH
    write_labels(maps / "c0.nii.gz", labels)
    (maps / "c2.nii.gz").unlink()
    assert report(data, maps, tmp_path / "r") == ExitCode.DONE
    oedema, empty, lost = rows_of(tmp_path / "r" / CASES_TABLE)
    assert (oedema["largest_lesion_wt_mm3"], oedema["tc_volume_mm3"]) == (str(11**3), "0")
    assert (empty["largest_lesion_wt_mm3"], empty["wt_volume_mm3"]) == ("", "0")
    assert (lost["largest_lesion_wt_mm3"], lost["wt_volume_mm3"]) == ("", "")
    for lesion in rows_of(tmp_path / "r" / LESIONS_TABLE):
        assert (lesion["longest_axial_diameter_mm"], lesion["longest_3d_diameter_mm"]) == ("", "")
        assert (lesion["measurable_from_10_mm"], lesion["cores_26connected_tc"]) == ("no", "0")
    page = (tmp_path / "r" / PAGE_FILE).read_text()
    assert page.count('<td class="number">no core</td>') == 2
    assert ">0.0<" not in page
    assert "2 measured cases together" in page
    piece = read_case_report(tmp_path / "r", "c0")
    assert piece.longest_axial_diameter_mm is None
    viewer = render_viewer(collect_cases(tmp_path / "r", find_paths(tmp_path / "r", None, None, None))["c0"])
    assert viewer.count('<td class="number">no core</td>') == 2


def test_where_nothing_was_measured_the_page_counts_nothing(tmp_path):
    data, maps = write_cohort(tmp_path, 1)
    (maps / "c0.nii.gz").unlink()
    assert report(data, maps, tmp_path / "r") == ExitCode.DONE
    tiles = (tmp_path / "r" / PAGE_FILE).read_text().split('<dl class="tiles">')[1].split("</dl>")[0]
    assert f"<dt>Lesions</dt><dd>{DASH}</dd>" in tiles
    assert f"<dt>Whole tumour</dt><dd>{DASH}</dd>" in tiles


def test_numbers_on_the_page_have_no_exponent_and_small_lesions_a_volume(tmp_path):
    sides = (0.5, 0.4, 0.5)
    affine = np.diag([*sides, 1])
    labels = np.zeros((40, 48, 32), dtype=np.uint8)
    labels[10, 10, 10] = 3
    write_case(tmp_path / "data", "c0", affine=affine)
    write_labels(tmp_path / "maps/c0.nii.gz", labels, affine)
    assert report(tmp_path / "data", tmp_path / "maps", tmp_path / "r") == ExitCode.DONE
    page = (tmp_path / "r" / PAGE_FILE).read_text()
    assert '<td class="number">0.1</td>' in page
    assert "0.5\N{MULTIPLICATION SIGN}0.4\N{MULTIPLICATION SIGN}0.5 mm" in page
    record = CaseRecord("b0", "present")
    case = CaseReport(record, BRATS.name, (4, 4, 4), (1, 1, 1), {"WT": 1.5e6, "TC": 2e-5})
    (row,) = csv.DictReader(io.StringIO(format_cases([case])))
    assert row["wt_volume_mm3"] == "1500000"
    assert show_mm3(1.5e6) == "1500000"
    assert show_mm3(0.0) == "0"


def test_a_cavity_is_shown_wherever_regions_are(tmp_path):
    labels = lesion_map()
    labels[3:8, 3:9, 3:8] = RC
    write_case(tmp_path / "data", "c0")
    write_labels(tmp_path / "maps/c0.nii.gz", labels)
    assert report(tmp_path / "data", tmp_path / "maps", tmp_path / "r") == ExitCode.DONE
    (case,) = rows_of(tmp_path / "r" / CASES_TABLE)
    assert (float(case["rc_volume_mm3"]), case["lesions_26connected_wt"]) == (5 * 6 * 5, "2")
    page = (tmp_path / "r" / PAGE_FILE).read_text()
    assert "resection cavity 150 mm³" in page
    assert "resection cavity pink" in page
    assert "tumour core, enhancing tumour and resection cavity" in page
    paths = find_paths(tmp_path / "r", None, None, None)
    viewer = render_viewer(collect_cases(tmp_path / "r", paths)["c0"])
    assert "resection cavity" in viewer.split('class="legend"')[1].split("</p>")[0]


def test_a_table_of_two_systems_has_the_columns_of_the_default_one():
    record = CaseRecord("h0", "present")
    head = CaseReport(record, RADIOSURGERY.name, (4, 4, 4), (1, 1, 1), {"metastasis": 5.0})
    brain = CaseReport(replace(record, case_id="b0"), BRATS.name, (4, 4, 4), (1, 1, 1), {"WT": 7.0, "TC": 2.0})
    alone, both = (list(csv.DictReader(io.StringIO(format_cases(cases)))) for cases in ([head], [head, brain]))
    assert alone[0]["metastasis_volume_mm3"] == "5"
    assert [row["wt_volume_mm3"] for row in both] == ["5", "7"]
    assert [row["tc_volume_mm3"] for row in both] == ["", "2"]


def test_a_name_that_is_no_utf8_breaks_no_stored_case(tmp_path):
    odd = os.fsdecode(b"c\xff")
    finding = Finding(odd, "warning", "negative", f"{odd}: negative intensities", f"look at {odd}")
    write_case_report(tmp_path, odd, describe_unmeasured(CaseRecord(odd, "failed", findings=(finding,)), BRATS), {})
    stored = read_case_report(tmp_path, odd)
    assert [warning.what for warning in stored.record.warnings] == ["c\\udcff: negative intensities"]


def test_a_missing_label_map_costs_no_other_warning(tmp_path):
    write_case(tmp_path / "data", "c0", images=phantom())
    for name in ("labels", "references"):
        (tmp_path / name).mkdir()
    (found,) = report_label_maps(
        tmp_path / "data", tmp_path / "labels", tmp_path / "r", reference_path=tmp_path / "references"
    )
    assert [warning.what for warning in found.record.warnings] == ["no reference of c0 found"]
    assert "no-label-map" in [note.code for note in found.record.notes]


# ---- what label 4 means


def of_2021(labels):
    return np.where(labels == ET, RC, labels).astype(np.uint8)


def cohort_of_2021(folder):
    """Cases c0 and c1, whose label maps are of 2021; references of today."""
    for name in ("c0", "c1"):
        write_case(folder / "data", name)
        write_labels(folder / f"maps/{name}.nii.gz", of_2021(lesion_map()))
        write_labels(folder / f"references/{name}.nii.gz", lesion_map())
    return folder / "data", folder / "maps"


def test_label_maps_of_2021_are_asked_about_and_measured_as_todays(tmp_path, capsys):
    data, maps = cohort_of_2021(tmp_path)
    assert report(data, tmp_path / "references", tmp_path / "today") == ExitCode.DONE
    assert report(data, maps, tmp_path / "r") == ExitCode.INPUT
    told = capsys.readouterr().err
    assert "label maps: 2 of 2 label maps hold 4 (c0.nii.gz, c1.nii.gz), none 3" in told
    assert "--labels brats2021" in told
    assert not (tmp_path / "r").exists()
    assert report(data, maps, tmp_path / "r", "--labels=brats2021") == ExitCode.DONE
    assert (tmp_path / "r" / LESIONS_TABLE).read_text() == (tmp_path / "today" / LESIONS_TABLE).read_text()
    assert RunJson.model_validate_json((tmp_path / "r" / RUN_FILE).read_bytes()).options["labels"] == "brats2021"
    assert report(data, maps, tmp_path / "cavities", "--labels=brats2025") == ExitCode.DONE
    assert float(rows_of(tmp_path / "cavities" / CASES_TABLE)[0]["rc_volume_mm3"]) > 0


def test_references_are_judged_apart(tmp_path, capsys):
    data, maps = cohort_of_2021(tmp_path)
    todays = tmp_path / "references"
    assert report(data, todays, tmp_path / "r", f"--reference-path={maps}") == ExitCode.INPUT
    assert "references: 2 of 2" in capsys.readouterr().err
    options = (f"--reference-path={maps}", "--labels=brats2021")
    assert report(data, todays, tmp_path / "r", *options) == ExitCode.DONE
    case = rows_of(tmp_path / "r" / CASES_TABLE)[0]
    assert case["reference_wt_volume_mm3"] == case["wt_volume_mm3"]


def labels_shown(report_dir, paths, name):
    """What the viewer calls each label of a file."""
    page = render_viewer(collect_cases(report_dir, paths)["c0"])
    state = json.loads(page.split('id="state">')[1].split("</script>")[0])
    return {label["value"]: label["name"] for label in state["labels"][name]}


def test_the_viewer_calls_4_what_the_report_does(tmp_path):
    data, maps = cohort_of_2021(tmp_path)
    folder = tmp_path / "r"
    report(data, maps, folder, "--labels=brats2021")
    assert labels_shown(folder, find_paths(folder, None, None, None), "segmentation")[RC] == "enhancing"
    moved = find_paths(folder, data, maps, None)
    assert labels_shown(folder, moved, "segmentation")[RC] == "enhancing"


def test_the_viewer_asks_about_label_maps_that_the_report_did_not_read(tmp_path):
    data, maps = cohort_of_2021(tmp_path)
    folder = tmp_path / "r"
    report(data, tmp_path / "references", folder)
    paths = find_paths(folder, None, None, maps)
    with pytest.raises(InputError, match="references: 2 of 2 label maps hold 4"):
        collect_cases(folder, paths)
    paths = find_paths(folder, None, None, maps, convention="brats2021")
    assert labels_shown(folder, paths, "reference")[RC] == "enhancing"
    assert labels_shown(folder, find_paths(folder, None, None, None), "segmentation")[RC] == "resection cavity"


def test_a_map_that_a_bundle_made_is_known(tmp_path):
    data, maps = cohort_of_2021(tmp_path)
    folder = tmp_path / "r"
    assert report(data, maps, folder, "--labels=brats2025") == ExitCode.DONE
    content = json.loads((folder / RUN_FILE).read_text())
    bundle = {"folder": "b", "plan": "default", "plan_sha256": "0", "members": []}
    (folder / RUN_FILE).write_text(json.dumps(content | {"command": "infer", "bundle": bundle, "options": {}}))
    assert hashes_of_bundles(folder) == {case["label_map_sha256"] for case in content["cases"]}
    saved = (folder / RUN_FILE).read_text()
    assert report(data, maps, folder) == ExitCode.DONE, "made by a bundle: nothing is asked"
    (folder / RUN_FILE).write_text(saved)
    options = (f"--reference-path={maps}", "--labels=brats2021")
    assert report(data, maps, folder, *options) == ExitCode.DONE
    case = rows_of(folder / CASES_TABLE)[0]
    assert float(case["rc_volume_mm3"]) > 0, "the bundle's regions decide"
    assert float(case["reference_wt_volume_mm3"]) > float(case["wt_volume_mm3"])
    (folder / RUN_FILE).write_text(saved)
    for name in ("c0", "c1"):
        labels = of_2021(lesion_map())
        labels[0, 0, 0] = 1
        write_labels(maps / f"{name}.nii.gz", labels)
    assert report(data, maps, folder) == ExitCode.INPUT, "another file than the bundle's"


def test_nearly_whole_labels_are_measured_with_a_warning(tmp_path):
    write_case(tmp_path / "data", "c0")
    write_labels(tmp_path / "maps/c0.nii.gz", lesion_map() * 0.9999999)
    (found,) = report_label_maps(tmp_path / "data", tmp_path / "maps", tmp_path / "r", reference_path=tmp_path / "maps")
    assert len(found.lesions) == 2
    assert found.reference.lesions == 2
    rounded = [warning.what for warning in found.record.warnings if "rounded to whole numbers" in warning.what]
    assert len(rounded) == 2, "the label map and the reference"
