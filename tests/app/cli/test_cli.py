import json
import shlex
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import yaml

from metseg.__main__ import run
from metseg.cli.infer import CONTAINER_INPUT
from metseg.cli.shard import parse_shard
from metseg.errors import ExitCode, UsageError
from metseg.files import listing
from metseg.files.blank import SRI24_SHAPE
from phantoms import phantom
from support import ALL, SUB, folder_bytes, names_in, write_bundle, write_case


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return write_bundle(tmp_path_factory.mktemp("weights") / "b", channels=(ALL, SUB))


@pytest.fixture
def data(tmp_path):
    write_case(tmp_path / "data", "c0", images=phantom())
    return tmp_path / "data"


def infer(data, bundle, output, *options):
    return run(
        ["infer", f"--data-path={data}", f"--weights={bundle}", f"--output-path={output}", "--device=cpu", *options]
    )


def test_infer_with_hyphens_and_with_underscores(data, bundle, tmp_path):
    assert infer(data, bundle, tmp_path / "a") == ExitCode.DONE
    options = [f"--data_path={data}", f"--weights={bundle}", f"--output_path={tmp_path / 'b'}"]
    assert run(["infer", *options, "--on_error=blank"]) == ExitCode.DONE
    assert (tmp_path / "a/c0.nii.gz").read_bytes() == (tmp_path / "b/c0.nii.gz").read_bytes()


def test_an_unknown_option_is_ignored_with_a_warning(data, bundle, tmp_path, capsys):
    assert infer(data, bundle, tmp_path / "out", "--future_option=7") == ExitCode.DONE
    assert "--future_option=7 is unknown and ignored" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [["infer", "surplus"], ["infer", "--unknown"], ["nonsense"], ["check", "surplus"]]
)
def test_usage_errors_exit_with_2(arguments):
    assert run(arguments) == ExitCode.USAGE


def test_no_case_exits_with_3(bundle, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert infer(tmp_path / "empty", bundle, tmp_path / "out") == ExitCode.INPUT
    assert "no case" in capsys.readouterr().err


def test_weights_that_are_not_there_exit_with_4(data, tmp_path):
    assert infer(data, tmp_path / "nowhere", tmp_path / "out") == ExitCode.WEIGHTS


def test_altered_weights_exit_with_4(data, tmp_path):
    bundle = write_bundle(tmp_path / "b", channels=(ALL,))
    (bundle / "m0.safetensors").write_bytes(b"x")
    assert infer(data, bundle, tmp_path / "out") == ExitCode.WEIGHTS


def test_a_missing_gpu_exits_with_5(data, bundle, tmp_path):
    options = [f"--data-path={data}", f"--weights={bundle}", f"--output-path={tmp_path / 'out'}"]
    assert run(["infer", *options, "--device=cuda"]) == ExitCode.DEVICE


def test_output_that_can_not_be_made_exits_with_6(data, bundle, tmp_path):
    (tmp_path / "file").write_text("")
    assert infer(data, bundle, tmp_path / "file" / "out") == ExitCode.OUTPUT


def test_all_cases_failed_exits_with_10_even_when_blank(bundle, tmp_path):
    folder = write_case(tmp_path / "data", "c0")
    (folder / "c0-t1c.nii.gz").unlink()
    assert infer(tmp_path / "data", bundle, tmp_path / "out", "--on-error=blank") == ExitCode.SOME_FAILED
    assert names_in(tmp_path / "out") == ["c0.nii.gz"]
    assert infer(tmp_path / "data", bundle, tmp_path / "out2", "--on-error=skip") == ExitCode.SOME_FAILED
    assert infer(tmp_path / "data", bundle, tmp_path / "out3") == ExitCode.INPUT


def test_on_error_may_come_from_the_environment(bundle, tmp_path, monkeypatch):
    write_case(tmp_path / "data", "c0")
    (write_case(tmp_path / "data", "c1") / "c1-t1c.nii.gz").unlink()
    monkeypatch.setenv("METSEG_ON_ERROR", "blank")
    assert infer(tmp_path / "data", bundle, tmp_path / "out") == ExitCode.DONE
    assert names_in(tmp_path / "out") == ["c0.nii.gz", "c1.nii.gz"]


def test_a_report_inside_the_output_folder_is_refused(data, bundle, tmp_path):
    assert infer(data, bundle, tmp_path / "out", f"--report-dir={tmp_path / 'out' / 'report'}") == ExitCode.USAGE


@pytest.mark.parametrize("content", ["", "plan: test\n", "null\n", "unknown: 1\n"])
def test_a_parameters_file_may_be_empty_or_name_settings(data, bundle, tmp_path, content):
    path = tmp_path / "parameters.yaml"
    path.write_text(content)
    assert infer(data, bundle, tmp_path / "out", f"--parameters_file={path}") == ExitCode.DONE


def test_a_plan_may_come_from_the_parameters_file_and_weights_from_additional_files(data, bundle, tmp_path):
    plan = yaml.safe_load((bundle / "plan.yaml").read_text()) | {"name": "own", "tta": {"variant": "none"}}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(plan, sort_keys=False))
    (tmp_path / "parameters.yaml").write_text("plan: own.yaml\n")
    (tmp_path / "extra").mkdir()
    (tmp_path / "extra" / "weights").symlink_to(bundle)
    options = [f"--data-path={data}", f"--output-path={tmp_path / 'out'}", f"--additional_files={tmp_path / 'extra'}"]
    assert run(["infer", *options, f"--parameters_file={tmp_path / 'parameters.yaml'}"]) == ExitCode.DONE


def numbers(shard):
    return shard.index, shard.count


@pytest.mark.parametrize(("text", "shard"), [("0/1", (0, 1)), ("2/3", (2, 3))])
def test_shards(text, shard):
    assert numbers(parse_shard(text)) == shard


@pytest.mark.parametrize("text", ["3/3", "1", "-1/2", "a/b", "1/0"])
def test_shards_that_do_not_exist(text):
    with pytest.raises(UsageError, match="0 <= I < N"):
        parse_shard(text)


def test_torchrun_gives_the_shard(monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert numbers(parse_shard(None)) == (1, 4)
    assert numbers(parse_shard("0/2")) == (0, 2)
    monkeypatch.setenv("RANK", "4")
    with pytest.raises(UsageError, match="RANK/WORLD_SIZE 4/4: expected I/N with 0 <= I < N"):
        parse_shard(None)


def test_a_rank_of_nothing_leaves_no_case_out(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setenv("RANK", "3")
    assert numbers(parse_shard(None)) == (0, 1)


@pytest.mark.parametrize(
    ("environment", "option", "said", "level"),
    [
        (
            {"RANK": "1", "WORLD_SIZE": "3"},
            None,
            "shard 1/3 (from RANK and WORLD_SIZE in the environment)",
            "warning: ",
        ),
        ({"RANK": "1", "WORLD_SIZE": "3"}, "0/2", "shard 0/2 (from --shard)", ""),
    ],
)
def test_a_share_of_the_cases_is_said_first_and_last_and_kept(  # noqa: PLR0917 - fixtures
    bundle, tmp_path, monkeypatch, capsys, environment, option, said, level
):
    for number in range(3):
        write_case(tmp_path / "data", f"c{number}")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    report = tmp_path / "report"
    options = [f"--report-dir={report}", *([f"--shard={option}"] if option else [])]
    assert infer(tmp_path / "data", bundle, tmp_path / "out", *options) == ExitCode.DONE
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith(f"{level}{said}")
    assert lines[-1].endswith(said)
    (found,) = report.glob("run*.json")
    run_options = json.loads(found.read_text())["options"]
    assert f"shard {run_options['shard']} (from {run_options['shard_from']})" == said


def test_without_a_share_nothing_is_said_of_it(data, bundle, tmp_path, capsys):
    assert infer(data, bundle, tmp_path / "out", f"--report-dir={tmp_path / 'report'}") == ExitCode.DONE
    assert "shard" not in capsys.readouterr().err
    options = json.loads((tmp_path / "report/run.json").read_text())["options"]
    assert (options["shard"], options["shard_from"]) == ("0/1", "")


def test_a_local_rank_that_is_no_number_exits_with_2(data, bundle, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LOCAL_RANK", "abc")
    assert infer(data, bundle, tmp_path / "out") == ExitCode.USAGE
    assert "LOCAL_RANK abc" in capsys.readouterr().err


CLOSED = ["2>&-", ">&-", ">&- 2>&-", "<&- >&- 2>&-", "2>/dev/full", ">/dev/full 2>/dev/full"]


@pytest.mark.parametrize("redirected", CLOSED)
def test_a_caller_that_takes_no_output_gets_its_label_maps(data, bundle, tmp_path, redirected):
    command = [sys.executable, "-m", "metseg", "infer", "--device=cpu", f"--data-path={data}", f"--weights={bundle}"]
    line = f"{shlex.join([*command, f'--output-path={tmp_path}/closed'])} {redirected}"
    assert subprocess.run(["bash", "-c", line], check=False).returncode == 0
    assert infer(data, bundle, tmp_path / "open") == ExitCode.DONE
    assert folder_bytes(tmp_path / "closed") == folder_bytes(tmp_path / "open")


@pytest.mark.parametrize("arguments", [[], ["--quiet"], ["--log-format", "json"]])
def test_without_a_command_the_exit_code_is_that_of_infer(arguments, monkeypatch, tmp_path):
    monkeypatch.setattr("metseg.cli.application.CONTAINER_INPUT", str(tmp_path))
    monkeypatch.setattr("metseg.cli.run.run_inference", lambda *_, **__: int(ExitCode.SOME_FAILED))
    assert run(arguments) == ExitCode.SOME_FAILED


@pytest.mark.parametrize("output", ["report/labels", "report/cases", "report/cases/labels"])
def test_a_report_and_label_maps_keep_out_of_each_others_way(output, data, bundle, tmp_path, capsys):
    refused = infer(data, bundle, tmp_path / output, f"--report-dir={tmp_path / 'report'}") == ExitCode.USAGE
    assert refused == (output != "report/labels")
    assert ("which may hold label maps alone" in capsys.readouterr().err) == refused


def test_no_flag_but_bundle_plan_and_device_changes_a_voxel(data, bundle, tmp_path):
    report = tmp_path / "report of the run"
    variants = {
        "plain": [],
        "blank": ["--on-error=blank"],
        "skip": ["--on-error=skip"],
        "resume": ["--resume"],
        "shard": ["--shard=0/1"],
        "report": [f"--report-dir={report}", "--save=probabilities,agreement"],
    }
    maps = set()
    for name, options in variants.items():
        assert infer(data, bundle, tmp_path / name, *options) == ExitCode.DONE
        maps.add((tmp_path / name / "c0.nii.gz").read_bytes())
    assert len(maps) == 1


def test_info_says_what_would_run(bundle, capsys):
    assert run(["info", "--json", f"--weights={bundle}"]) == ExitCode.DONE
    facts = json.loads(capsys.readouterr().out)
    assert facts["bundle"]["plan"] == "test"
    assert facts["bundle"]["required_modalities"] == ["t1c", "t1n", "t2f"]
    assert [member["name"] for member in facts["bundle"]["members"]] == ["m0", "m1"]


def test_info_says_how_each_member_works(tmp_path, capsys):
    folder = write_bundle(tmp_path / "b", channels=(ALL, ALL))
    plan = yaml.safe_load((folder / "plan.yaml").read_text())
    plan["fusion"] = {"added_by_maximum": ["m1"]}
    plan["members"][1] |= {"window": {"size": [16, 16, 16], "overlap": 0.25}, "spacing_mm": 2.0}
    (folder / "plan.yaml").write_text(yaml.safe_dump(plan, sort_keys=False))
    assert run(["info", "--json", f"--weights={folder}"]) == ExitCode.DONE
    first, second = json.loads(capsys.readouterr().out)["bundle"]["members"]
    assert (first["fusion"], second["fusion"]) == ("simple", "maximum")
    assert second["window"] == {"size": [16, 16, 16], "overlap": 0.25, "extent": "fixed"}
    assert (first["spacing_mm"], second["spacing_mm"]) == (1, 2)
    assert run(["info", f"--weights={folder}"]) == ExitCode.DONE
    assert "member m1: t1n, t1c, t2w, t2f; windows of 16x16x16, overlap 0.25, fixed at 2 mm; fused by maximum" in (
        capsys.readouterr().out
    )


def test_check_exits_with_3_for_an_error_and_0_for_a_good_folder(data, bundle, capsys):
    assert run(["check", f"--data-path={data}", f"--weights={bundle}"]) == ExitCode.DONE
    (data / "c0" / "c0-t1c.nii.gz").unlink()
    assert run(["check", f"--data_path={data}", f"--weights={bundle}"]) == ExitCode.INPUT
    assert "t1c" in capsys.readouterr().out


def test_check_looks_at_what_the_named_plan_needs(tmp_path, capsys):
    folder = write_bundle(tmp_path / "b", channels=(ALL, SUB))
    plan = yaml.safe_load((folder / "plan.yaml").read_text())
    (folder / "plans").mkdir()
    (folder / "plans" / "all.yaml").write_text(
        yaml.safe_dump({**plan, "members": plan["members"][:1]}, sort_keys=False)
    )
    case = write_case(tmp_path / "data", "c0")
    (case / "c0-t2w.nii.gz").unlink()
    options = ["check", f"--data-path={tmp_path / 'data'}", f"--weights={folder}"]
    assert run(options) == ExitCode.DONE
    assert run([*options, "--plan=all"]) == ExitCode.INPUT
    assert "t2w is missing" in capsys.readouterr().out


def test_help_info_and_check_need_no_torch(bundle, data):
    program = (
        "import sys; from metseg.__main__ import run\n"
        f"codes = [run(['--help']), run(['info', '--weights={bundle}']),"
        f" run(['check', '--data-path={data}', '--weights={bundle}'])]\n"
        "assert codes == [0, 0, 0], codes\n"
        "assert 'torch' not in sys.modules and 'monai' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL)


ALIASES = {"t1n": "_t1", "t1c": "_T1CE", "t2w": "-t2", "t2f": "_FLAIR"}


def rename(folder, spell):
    for path in folder.iterdir():
        case_id, modality = path.name.removesuffix(".nii.gz").rsplit("-", 1)
        path.rename(folder / spell(case_id, modality))


@pytest.mark.parametrize(
    "variant",
    [
        (lambda case_id, modality: f"{case_id}{ALIASES[modality]}.nii.gz", True),
        (lambda case_id, modality: f"{case_id.upper()}-{modality}.NII.GZ", True),
        (lambda case_id, modality: f"../{case_id}-{modality}.nii.gz", False),  # flat
    ],
)
def test_other_names_and_layouts_give_the_same_label_map(data, bundle, tmp_path, capsys, variant):
    spell, is_warned = variant
    write_case(data, "c1", images=phantom(seed=1))
    assert infer(data, bundle, tmp_path / "plain") == ExitCode.DONE
    for folder in (data / "c0", data / "c1"):
        rename(folder, spell)
        if not any(folder.iterdir()):
            folder.rmdir()
    capsys.readouterr()
    assert infer(data, bundle, tmp_path / "other") == ExitCode.DONE
    for name in ("c0.nii.gz", "c1.nii.gz"):
        assert (tmp_path / "plain" / name).read_bytes() == (tmp_path / "other" / name).read_bytes()
    assert capsys.readouterr().err.count("not called c0-<modality>") == is_warned


def test_one_cases_folder_is_the_input(data, bundle, tmp_path, monkeypatch):
    (data / "c0").rename(tmp_path / "input")
    assert infer(tmp_path / "input", bundle, tmp_path / "out") == ExitCode.DONE
    assert names_in(tmp_path / "out") == ["c0.nii.gz"]
    monkeypatch.chdir(tmp_path / "input")
    assert infer(".", bundle, tmp_path / "again") == ExitCode.DONE
    assert names_in(tmp_path / "again") == ["c0.nii.gz"]


@pytest.mark.parametrize("is_closed", [False, True])
def test_a_folder_that_can_not_be_used_is_a_failed_case(data, bundle, capsys, monkeypatch, is_closed):
    tmp_path = data.parent
    folder = write_case(data, "c1", images=phantom())
    rename(folder, lambda _, modality: f"scan-{modality}.nii.gz")
    shape = nib.load(folder / "scan-t1c.nii.gz").shape
    words = "no image is called c1-<modality>.nii.gz, but scan-t1c.nii.gz"
    if is_closed:
        shape, words = SRI24_SHAPE, "can't be listed: Permission denied"
        list_folder = listing.list_folder

        def refuse(path):
            if path.name == "c1":
                raise PermissionError(13, "Permission denied")
            return list_folder(path)

        monkeypatch.setattr(listing, "list_folder", refuse)
    assert run(["check", f"--data-path={data}", f"--weights={bundle}"]) == ExitCode.INPUT
    assert "1 errors" in capsys.readouterr().err
    assert infer(data, bundle, tmp_path / "stop") == ExitCode.INPUT
    assert infer(data, bundle, tmp_path / "skip", "--on-error=skip") == ExitCode.SOME_FAILED
    assert names_in(tmp_path / "skip") == ["c0.nii.gz"]
    assert (
        infer(data, bundle, tmp_path / "blank", "--on-error=blank", f"--report-dir={tmp_path / 'r'}") == ExitCode.DONE
    )
    assert capsys.readouterr().err.count(words) >= 3
    blank = nib.load(tmp_path / "blank" / "c1.nii.gz")
    assert (blank.shape, np.asanyarray(blank.dataobj).any()) == (shape, False)
    outcomes = {case["case_id"]: case["outcome"] for case in json.loads((tmp_path / "r/run.json").read_text())["cases"]}
    assert outcomes == {"c0": "segmented", "c1": "blank"}
    assert (
        run(
            [
                "report",
                f"--data-path={data}",
                f"--prediction-path={tmp_path / 'blank'}",
                f"--report-dir={tmp_path / 'q'}",
            ]
        )
        == 0
    )


def test_label_maps_and_a_report_inside_the_input_are_no_cases(data, bundle):
    folders = [data / "labels", data / "report"]
    for _ in range(2):
        assert infer(data, bundle, folders[0], f"--report-dir={folders[1]}") == ExitCode.DONE
    assert names_in(folders[0]) == ["c0.nii.gz"]
    assert run(["check", f"--data-path={data}", f"--prediction-path={folders[0]}"]) == ExitCode.DONE


def test_two_modalities_of_the_same_voxels_are_a_warning_everywhere(data, bundle, tmp_path, capsys):
    (data / "c0" / "c0-t1n.nii.gz").write_bytes((data / "c0" / "c0-t1c.nii.gz").read_bytes())
    assert run(["check", f"--data-path={data}", f"--weights={bundle}"]) == ExitCode.DONE
    assert "same-image" in capsys.readouterr().out
    assert infer(data, bundle, tmp_path / "out") == ExitCode.DONE
    assert "warning: case c0: t1n (c0-t1n.nii.gz) holds the same voxels as t1c" in capsys.readouterr().err


def test_check_looks_into_the_containers_input(bundle, capsys):
    assert CONTAINER_INPUT == "/input"
    assert (
        "/input"
        in subprocess.run(
            [sys.executable, "-m", "metseg", "check", "--help"], capture_output=True, text=True, check=True
        ).stdout
    )
    assert run(["check", f"--weights={bundle}"]) == (ExitCode.INPUT if not Path("/input").exists() else ExitCode.DONE)
    assert "checking /input" in capsys.readouterr().err


@pytest.mark.parametrize("mode", ["--on-error=stop", "--on-error=skip", "--on-error=blank"])
@pytest.mark.parametrize("is_whole", [True, False])
def test_an_id_with_a_newline_breaks_no_log_line(bundle, tmp_path, capsys, mode, is_whole):
    folder = write_case(tmp_path / "data", "new\nline")
    if not is_whole:
        for path in folder.iterdir():
            path.write_bytes(b"")
    infer(tmp_path / "data", bundle, tmp_path / "out", mode, f"--report-dir={tmp_path / 'report'}")
    run(["check", f"--data-path={tmp_path / 'data'}", f"--weights={bundle}"])
    said = capsys.readouterr()
    assert "new\\nline" in said.err
    assert not [line for line in (said.err + said.out).splitlines() if line.startswith("line")]
