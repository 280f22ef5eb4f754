"""Which folders are cases, and what is said about those that are not."""

import os
import unicodedata

import pytest
from rich.console import Console

from metseg.cli.findings_table import tabulate_findings
from metseg.errors import ExitCode, InputError
from metseg.files.discovery import discover_cases, missing_modalities, survey_cases
from metseg.findings import Finding, printable

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
    add(tmp_path / "wrong", "t1c", name="other")

    assert [case.case_id for case in discover_cases(tmp_path)] == ["case"]

    assert [record.message for record in caplog.records] == [
        "ignored 500 folders without files: empty-000, empty-001, empty-002 and 497 more",
        "ignored 1 folder without an image named after the folder: wrong (holds other-t1c.nii.gz)",
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
    add(tmp_path / "sub-01", "t1c", name="t")
    with pytest.raises(InputError) as caught:
        discover_cases(tmp_path)
    message = str(caught.value)
    assert "no case in" in message
    assert "<ID>-<modality>.nii.gz" in message
    assert "1 folder without files" in message
    assert "sub-01 (holds t-t1c.nii.gz)" in message
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
