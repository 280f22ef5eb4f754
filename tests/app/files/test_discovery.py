"""Which folders are cases, and what is said about those that are not."""

import os
import unicodedata

import pytest
from rich.console import Console

from metseg.cli.findings_table import tabulate_findings
from metseg.errors import ExitCode, InputError
from metseg.files import listing
from metseg.files.blank import blank_label_map
from metseg.files.discovery import discover_cases, missing_modalities, survey_cases
from metseg.files.listing import find_file
from metseg.files.names import read_name
from metseg.findings import Finding, errors_among, printable

ALL = ("t1n", "t1c", "t2w", "t2f")


def add(folder, *modalities, suffix=".nii.gz", name=None):
    folder.mkdir(parents=True, exist_ok=True)
    for modality in modalities:
        (folder / f"{name or folder.name}-{modality}{suffix}").write_bytes(b"")


def test_cases_are_sorted_and_their_files_found_by_content(tmp_path):
    add(tmp_path / "b", *ALL)
    add(tmp_path / "a", "t1c", "t1n", suffix=".nii")
    (tmp_path / "a" / "a-seg.nii.gz").write_bytes(b"")
    (tmp_path / "a" / "notes.txt").write_text("x")
    (tmp_path / "a" / "sub").mkdir()
    (tmp_path / "stray.nii.gz").write_bytes(b"")

    first, second = discover_cases(tmp_path)

    assert (first.case_id, second.case_id) == ("a", "b")
    assert first.images == {"t1n": tmp_path / "a" / "a-t1n.nii", "t1c": tmp_path / "a" / "a-t1c.nii"}
    assert tuple(second.images) == ALL
    assert missing_modalities(first, ALL) == ("t2w", "t2f")


@pytest.mark.parametrize(
    "name", ["a case", "Ärztin-Ω-患者", "BraTS-MET-00001-000", "0", "x-t1c", "[red]", "-rf", ".hidden"]
)
def test_a_folders_name_is_opaque(tmp_path, name):
    add(tmp_path / name, *ALL)
    assert [case.case_id for case in discover_cases(tmp_path)] == [name]


def test_accents_may_be_encoded_differently_in_folder_and_file(tmp_path):
    name = "J\u00fcrgen"
    add(tmp_path / name, "t1c", name=unicodedata.normalize("NFD", name))
    (case,) = discover_cases(tmp_path)
    assert case.case_id == name
    assert tuple(case.images) == ("t1c",)


def test_links_are_followed(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "scan.nii.gz").write_bytes(b"")
    data = tmp_path / "data"
    (data / "a").mkdir(parents=True)
    (data / "a" / "a-t1c.nii.gz").symlink_to(elsewhere / "scan.nii.gz")
    (data / "a" / "a-t1n.nii.gz").symlink_to(elsewhere / "gone.nii.gz")
    add(elsewhere / "b", "t1c")
    (data / "b").symlink_to(elsewhere / "b")

    a, b = discover_cases(data)

    assert set(a.images) == {"t1c", "t1n"}, "a dangling link is found, so that reading it says what is wrong"
    assert (b.case_id, set(b.images)) == ("b", {"t1c"})


def test_five_hundred_empty_folders_are_one_line(tmp_path, caplog):
    for number in range(500):
        (tmp_path / f"empty-{number:03d}").mkdir()
    add(tmp_path / "case", "t1c")
    (tmp_path / "wrong" / "sub").mkdir(parents=True)

    assert [case.case_id for case in discover_cases(tmp_path)] == ["case"]

    assert [record.message for record in caplog.records] == [
        "ignored 500 folders without files: empty-000, empty-001, empty-002 and 497 more",
        "ignored 1 folder without an image named after the folder: wrong (holds sub/)",
    ]


def test_a_link_that_can_not_be_followed_costs_nothing_else(tmp_path):
    data = tmp_path / "data"
    add(data / "a", "t1c")
    (data / "a" / "a-t1n.nii.gz").symlink_to("a-t1n.nii.gz")
    add(data / "b", "t1c")
    (data / "loop").symlink_to("loop")

    a, b = discover_cases(data)

    assert set(a.images) == {"t1c", "t1n"}, "reading it says what is wrong"
    assert b.case_id == "b"


def test_two_files_for_one_modality_are_the_cases_own_error(tmp_path):
    add(tmp_path / "a", *ALL)
    add(tmp_path / "a", "t1c", suffix=".nii")
    (case,) = discover_cases(tmp_path)
    assert "t1c" not in case.images
    assert [path.name for path in case.rivals["t1c"]] == ["a-t1c.nii", "a-t1c.nii.gz"]
    assert missing_modalities(case, ALL) == ()


@pytest.mark.parametrize("names", [("Case", "case"), ("\u00fc", "u\u0308")])
def test_ids_whose_label_maps_may_overwrite_each_other_are_refused(tmp_path, names):
    for name in names:
        add(tmp_path / name, *ALL)
    with pytest.raises(InputError, match="duplicate IDs") as caught:
        discover_cases(tmp_path)
    assert caught.value.exit_code == ExitCode.INPUT == 3
    assert len(survey_cases(tmp_path).cases) == 2


def test_a_case_folder_itself_is_one_case(tmp_path, monkeypatch):
    add(tmp_path / "a", *ALL)
    (tmp_path / "a" / "derivatives").mkdir()
    for path in (tmp_path / "a", "."):
        monkeypatch.chdir(tmp_path / "a")
        (case,) = discover_cases(tmp_path / "a" if path == "." else path)
        assert (case.case_id, len(case.images)) == ("a", 4)


def test_folders_inside_win_over_the_folder_itself(tmp_path):
    add(tmp_path / "a", *ALL)
    add(tmp_path / "a" / "b", *ALL)
    assert [case.case_id for case in discover_cases(tmp_path / "a")] == ["b"]


def test_no_case_says_what_was_looked_for_and_found(tmp_path):
    (tmp_path / "empty").mkdir()
    add(tmp_path / "sub-01" / "anat", "t1c", name="t")
    with pytest.raises(InputError) as caught:
        discover_cases(tmp_path)
    message = str(caught.value)
    assert "no case in" in message
    assert "<ID>-<modality>.nii.gz" in message
    assert "1 folder without files" in message
    assert "sub-01 (holds anat/t-t1c.nii.gz)" in message
    assert caught.value.hint


@pytest.mark.parametrize(("name", "expected"), [("gone", "does not exist"), ("file", "is a file, expected a folder")])
def test_a_data_path_that_is_no_folder(tmp_path, name, expected):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=expected):
        discover_cases(tmp_path / name)


@pytest.mark.skipif(os.getuid() == 0, reason="root may list every folder")
def test_a_folder_that_may_not_be_listed(tmp_path):
    (tmp_path / "closed").mkdir(mode=0)
    with pytest.raises(InputError, match="can't be listed"):
        discover_cases(tmp_path / "closed")


def test_names_that_are_no_text_can_be_shown(tmp_path):
    add(tmp_path / os.fsdecode(b"\xff\x1b[31m"), "t1c")
    (case,) = discover_cases(tmp_path)
    assert printable(case.case_id) == "\\udcff\\x1b[31m"


def test_the_table_shows_names_as_they_are():
    problems = [Finding("[bold]a", "error", "missing-modality", "t1c is missing", "Add it.")]
    console = Console(width=120, record=True, file=open(os.devnull, "w"))  # noqa: SIM115, PTH123
    console.print(tabulate_findings(problems))
    text = console.export_text()
    assert "[bold]a" in text
    assert "Add it." in text
    console.file.close()


def test_a_link_to_a_case_that_is_not_there_is_said(tmp_path, caplog):
    add(tmp_path / "a", *ALL)
    (tmp_path / "b").symlink_to(tmp_path / "not mounted" / "b")
    (case,) = discover_cases(tmp_path)
    assert case.case_id == "a"
    assert caplog.messages == ["ignored 1 link that leads nowhere: b"]


# ---- names one step away


@pytest.mark.parametrize(
    ("name", "case_id", "kind"),
    [
        ("P1-t1c.nii.gz", "P1", "t1c"),
        ("P1-t1.nii.gz", "P1", "t1n"),
        ("P1_T1w.nii", "P1", "t1n"),
        ("BraTS2021_00001_t1ce.nii.gz", "BraTS2021_00001", "t1c"),
        ("a-b_c-T1Gd.NII.GZ", "a-b_c", "t1c"),
        ("P1_t2.Nii.Gz", "P1", "t2w"),
        ("P1-FLAIR.NII", "P1", "t2f"),
        ("x-t1c-t1n.nii.gz", "x-t1c", "t1n"),
        ("P1_seg.nii.gz", "P1", "seg"),
        ("P1-CT.nii.gz", "P1", "ct"),
    ],
)
def test_a_name_is_read_in_the_spellings_that_people_use(name, case_id, kind):
    image = read_name(name)
    assert (image.case_id, image.kind) == (case_id, kind)
    assert image.is_plain == (name in {"P1-t1c.nii.gz", "x-t1c-t1n.nii.gz"})


@pytest.mark.parametrize("name", ["P1.nii.gz", "t1c.nii.gz", "-t1c.nii.gz", "P1-t1c (1).nii.gz", "P1t1c.nii"])
def test_an_image_may_state_no_modality(name):
    assert read_name(name).kind is None


@pytest.mark.parametrize("name", ["._P1-t1c.nii.gz", "P1-t1c.nii.json", "P1-t1c", "P1-t1c.mgz", "P1-t1c.nii.bz2"])
def test_other_files_are_no_images(name):
    assert read_name(name) is None


def test_other_names_are_one_warning_a_case(tmp_path):
    folder = tmp_path / "p1"
    folder.mkdir()
    names = {"t1n": "P1_t1.nii.gz", "t1c": "P1-T1CE.NII.GZ", "t2w": "p1-t2.nii", "t2f": "p1-t2f.nii.gz"}
    for name in names.values():
        (folder / name).touch()
    (case,) = discover_cases(tmp_path)
    assert case.case_id == "p1"
    assert {modality: path.name for modality, path in case.images.items()} == names
    (finding,) = case.findings
    assert (finding.case_id, finding.severity, finding.code) == ("p1", "warning", "file-name")
    assert "P1_t1.nii.gz as t1n, P1-T1CE.NII.GZ as t1c, p1-t2.nii as t2w" in finding.what
    assert "t2f" not in finding.what


@pytest.mark.parametrize("names", [("P1-t1n", "P1-t1w"), ("P1_T1CE", "P1-t1gd"), ("P1-t1c", "p1-t1c")])
def test_two_names_for_one_modality_are_rivals(tmp_path, names):
    (tmp_path / "P1").mkdir()
    for name in names:
        (tmp_path / "P1" / f"{name}.nii.gz").touch()
    (case,) = discover_cases(tmp_path)
    (rivals,) = case.rivals.values()
    assert {path.name for path in rivals} == {f"{name}.nii.gz" for name in names}


def test_what_a_case_lacks_may_lie_there_under_another_name(tmp_path):
    add(tmp_path / "P1", "t1n", "t1post")
    (tmp_path / "P1" / "P1-t2w.nii.gz.gz").touch()
    (case,) = discover_cases(tmp_path)
    assert [path.name for path in case.others] == ["P1-t1post.nii.gz", "P1-t2w.nii.gz.gz"]


def test_a_reference_is_found_in_other_spellings_too(tmp_path):
    (tmp_path / "P1_SEG.nii.gz").touch()
    assert find_file(tmp_path, "p1", "seg") == tmp_path / "P1_SEG.nii.gz"
    (tmp_path / "p1_seg.nii").touch()
    with pytest.raises(InputError, match=r"case p1: seg exists 2 times: P1_SEG\.nii\.gz and p1_seg\.nii"):
        find_file(tmp_path, "p1", "seg")
    (tmp_path / "p1-seg.nii").touch()
    assert find_file(tmp_path, "p1", "seg") == tmp_path / "p1-seg.nii"
    assert find_file(tmp_path / "gone", "p1", "seg") is None


# ---- cases that fail by their folder


def close(monkeypatch, *folders):
    """Closes folders to everybody: root may list every one."""
    scandir = os.scandir

    def refuse(path):
        if path in folders:
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(listing.os, "scandir", refuse)


def test_a_folder_that_may_not_be_read_is_a_case_that_fails(tmp_path, monkeypatch):
    add(tmp_path / "a", *ALL)
    for name in ("b", ".hidden", "lost+found"):
        (tmp_path / name).mkdir()
    close(monkeypatch, tmp_path / "b", tmp_path / ".hidden", tmp_path / "lost+found")
    survey = survey_cases(tmp_path)
    a, b = survey.cases
    assert (a.case_id, b.case_id, b.images) == ("a", "b", {})
    (error,) = errors_among(b.findings)
    assert error.code == "unreadable"
    assert "b can't be listed: Permission denied" in error.what
    (ignored,) = survey.findings
    assert ".hidden (can't be listed: Permission denied), lost+found" in ignored.what
    assert blank_label_map(b)[0].shape == (240, 240, 155)


def test_a_link_into_a_closed_folder_is_a_case_that_fails(tmp_path, monkeypatch):
    class Closed:
        def __init__(self, entry):
            self.name, self.path, self.is_symlink = entry.name, entry.path, entry.is_symlink

        def is_dir(self):
            raise PermissionError(13, "Permission denied")

    add(tmp_path / "a", *ALL)
    (tmp_path / "b").symlink_to(tmp_path / "vault" / "b")
    scandir = os.scandir
    entries = [Closed(entry) if entry.name == "b" else entry for entry in scandir(tmp_path)]

    class Scan(list):
        __enter__ = list.__iter__
        __exit__ = lambda *_: None  # noqa: E731

    monkeypatch.setattr(listing.os, "scandir", lambda path: Scan(entries) if path == tmp_path else scandir(path))
    assert [case.case_id for case in discover_cases(tmp_path)] == ["a", "b"]


def test_images_that_are_all_named_otherwise_are_a_case_that_fails(tmp_path):
    add(tmp_path / "a", *ALL)
    add(tmp_path / "b", "t1c", name="other")
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "T1post.nii").touch()
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "d-t1c.nii.bz2").touch()
    survey = survey_cases(tmp_path)
    assert [case.case_id for case in survey.cases] == ["a", "b", "c", "d"]
    assert survey.findings == ()
    found = [errors_among(case.findings)[0] for case in survey.cases[1:]]
    assert {finding.code for finding in found} == {"file-name"}
    assert "no image is called b-<modality>.nii.gz, but other-t1c.nii.gz" in found[0].what
    assert found[0].hint.startswith("Call the folder other, or give")
    assert [path.name for path in survey.cases[2].others] == ["T1post.nii"]


@pytest.mark.parametrize("inside", ["sub/", "notes.txt", "p-seg.nii.gz", "x_SEG.nii", "._p-t1c.nii.gz"])
def test_folders_without_an_image_are_no_case_but_named(tmp_path, inside):
    add(tmp_path / "a", *ALL)
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "sub").mkdir() if inside == "sub/" else (tmp_path / "p" / inside).touch()
    survey = survey_cases(tmp_path)
    assert [case.case_id for case in survey.cases] == ["a"]
    (finding,) = survey.findings
    assert (finding.severity, finding.code) == ("warning", "ignored-folder")
    assert f"p (holds {inside})" in finding.what


def test_folders_of_label_maps_and_reports_are_left_alone(tmp_path):
    add(tmp_path / "a", *ALL)
    for name in ("labels", "report"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.nii.gz").touch()
    assert [case.case_id for case in discover_cases(tmp_path)] == ["a", "labels", "report"]
    apart = [tmp_path / "x" / ".." / "labels", tmp_path / "report"]
    assert [case.case_id for case in discover_cases(tmp_path, apart_from=apart)] == ["a"]


# ---- too deep, too flat


def test_a_flat_folder_of_complete_sets_is_read(tmp_path):
    for name in ("b-1", "a"):
        for modality in ALL:
            (tmp_path / f"{name}-{modality}.nii.gz").touch()
    (tmp_path / "a-seg.nii.gz").touch()
    (tmp_path / "a.nii.gz").touch()
    survey = survey_cases(tmp_path)
    assert [case.case_id for case in survey.cases] == ["a", "b-1"]
    assert {case.folder for case in survey.cases} == {tmp_path}
    assert survey.cases[1].images["t1c"] == tmp_path / "b-1-t1c.nii.gz"
    assert survey.findings == ()
    (tmp_path / "c_T1.nii.gz").touch()
    with pytest.raises(InputError, match="3 cases beside each other, not all with t1c: c lacks t1c, t2w, t2f"):
        discover_cases(tmp_path)


def test_images_beside_case_folders_are_named(tmp_path):
    add(tmp_path / "p", *ALL)
    for name in ("a-t1c", "a-t1n", "a-t2w", "a-t2f", "p", "p-seg"):
        (tmp_path / f"{name}.nii.gz").touch()
    survey = survey_cases(tmp_path)
    assert [case.case_id for case in survey.cases] == ["p"]
    (finding,) = survey.findings
    assert (finding.severity, finding.code) == ("warning", "ignored-file")
    assert "ignored 4 images" in finding.what


def test_a_folder_that_fails_keeps_a_flat_folder_from_being_read(tmp_path):
    for name in ("a", "b"):
        for modality in ALL:
            (tmp_path / f"{name}-{modality}.nii.gz").touch()
    add(tmp_path / "p", "t1c", name="other")
    survey = survey_cases(tmp_path)
    assert [case.case_id for case in survey.cases] == ["p"]
    assert "ignored 8 images" in survey.findings[0].what


@pytest.mark.parametrize("modalities", [ALL, ("t1n", "t1c"), ("t1c",), ("t1n", "t2f")])
def test_one_cases_folder_may_have_another_name(tmp_path, modalities):
    add(tmp_path / "input", *modalities, name="P-1")
    (tmp_path / "input" / "empty").mkdir()
    (case,) = discover_cases(tmp_path / "input")
    assert case.case_id == "P-1"
    assert set(case.images) == set(modalities)
    assert case.findings == ()


def test_a_cases_own_folder_may_hold_derivatives(tmp_path):
    add(tmp_path / "a", *ALL)
    add(tmp_path / "a" / "masks", "t1c", name="brain")
    survey = survey_cases(tmp_path / "a")
    assert [case.case_id for case in survey.cases] == ["a"]
    assert "masks (holds brain-t1c.nii.gz)" in survey.findings[0].what


@pytest.mark.parametrize(
    ("path", "name", "give"),
    [
        ("archive/P1", "P1", "archive"),
        ("P1/P1", "P1", "P1"),
        ("P1/visit1", "P1", "P1/visit1"),
        ("download/archive/site/P1", "P1", "download/archive/site"),
        ("sub-1/ses-1/anat", "sub-1_ses-1", "sub-1/ses-1/anat"),
    ],
)
def test_one_level_too_deep_says_which_folder_to_give(tmp_path, path, name, give):
    add(tmp_path / path, *ALL, name=name)
    with pytest.raises(InputError) as caught:
        discover_cases(tmp_path)
    assert f"holds {'/'.join(path.split('/')[1:])}/{name}-t1c.nii.gz" in str(caught.value)
    assert caught.value.hint == f"Give {tmp_path / give} as the folder of cases."
    assert len(discover_cases(tmp_path / give)) == 1


def test_cases_that_lie_too_deep_beside_others_are_named(tmp_path):
    add(tmp_path / "a", *ALL)
    add(tmp_path / "b" / "visit1", *ALL, name="b")
    add(tmp_path / "b" / "visit2", *ALL, name="b")
    (finding,) = survey_cases(tmp_path).findings
    assert "b (holds visit1/b-t1c.nii.gz)" in finding.what
    assert f"Give one of {tmp_path / 'b/visit1'}, {tmp_path / 'b/visit2'} as the folder of cases." in finding.hint


def test_a_flat_folder_one_level_deeper_says_so(tmp_path):
    for name in ("a", "b"):
        add(tmp_path / "all", *ALL, name=name)
    (case,) = discover_cases(tmp_path)
    assert f"Give {tmp_path / 'all'} as the folder of cases: it holds the images of a, b." in case.findings[0].hint
    assert [found.case_id for found in discover_cases(tmp_path / "all")] == ["a", "b"]


def test_what_an_operating_system_leaves_is_no_case(tmp_path):
    add(tmp_path / "a", *ALL)
    add(tmp_path / "a", "t1c", name="._a")
    add(tmp_path / "__MACOSX", "t1c", name="._a")
    add(tmp_path / "._b", *ALL, name="b")
    add(tmp_path / ".cache", *ALL, name="x")
    (tmp_path / ".DS_Store").touch()
    survey = survey_cases(tmp_path)
    assert [case.case_id for case in survey.cases] == ["a"]
    assert not survey.cases[0].rivals
    (finding,) = survey.findings
    assert "ignored 3 folders" in finding.what
    assert "Give" not in finding.hint


def test_only_archives_are_said_too(tmp_path):
    (tmp_path / "cases.zip").touch()
    with pytest.raises(InputError, match=r"found 1 other file: cases\.zip"):
        discover_cases(tmp_path)


def test_a_flat_folder_of_cases_that_all_have_t1c_is_read(tmp_path):
    for name in ("a-t1c", "a-t2f", "b-t1c"):
        (tmp_path / f"{name}.nii.gz").touch()
    assert [sorted(case.images) for case in survey_cases(tmp_path).cases] == [["t1c", "t2f"], ["t1c"]]
