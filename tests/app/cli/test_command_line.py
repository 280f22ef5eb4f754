"""What a person at a terminal gets: help by purpose, completion, log lines of the kind asked for."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from metseg.__main__ import run
from metseg.cli.logs import LogFormat, configure_logging
from metseg.cli.progress import SHOWN_WARNINGS, BatchProgress
from metseg.errors import ExitCode
from metseg.findings import warning
from metseg.run.record import CaseRecord
from phantoms import phantom
from support import ALL, write_bundle, write_case

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return write_bundle(tmp_path_factory.mktemp("weights") / "b", channels=(ALL,))


@pytest.fixture
def data(tmp_path):
    write_case(tmp_path / "data", "c0", images=phantom())
    return tmp_path / "data"


def infer(data, bundle, *before):
    output = data.parent / f"out{len(list(data.parent.iterdir()))}"
    return run([*before, "infer", f"--data-path={data}", f"--weights={bundle}", f"--output-path={output}"])


def program(*arguments, **environment):
    """As a shell calls it: completion goes by the program's name."""
    return subprocess.run(
        [Path(sys.executable).with_name("metseg"), *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


def test_help_groups_commands_by_what_people_do(capsys):
    assert run(["--help"]) == ExitCode.DONE
    text = capsys.readouterr().out
    headings = ["Segment", "Look before and after", "Pass results on", "Does this installation work?"]
    places = [text.index(heading) for heading in headings]
    assert places == sorted(places)
    for name, heading in (("infer", 0), ("check", 1), ("view", 1), ("export-dicom", 2), ("self-test", 3)):
        end = places[heading + 1] if heading + 1 < len(places) else len(text)
        assert f" {name} " in text[places[heading] : end], name
    assert "not a medical device" in text
    assert "metseg check --data-path CASES" in text


@pytest.mark.parametrize(
    ("line", "word", "offered"),
    [
        ("metseg self", "1", "self-test"),
        ("metseg infer --report", "2", "--report-dir"),
        ("metseg infer --device c", "3", "cpu"),
    ],
)
def test_completion_offers_commands_options_and_values(line, word, offered):
    asked = program(_METSEG_COMPLETE="complete_bash", COMP_WORDS=line, COMP_CWORD=word)
    assert offered in asked.stdout.split()


def test_one_line_a_case_goes_to_stderr_and_nothing_to_stdout(data, bundle, capsys):
    assert infer(data, bundle) == ExitCode.DONE
    said = capsys.readouterr()
    assert not said.out
    assert len([line for line in said.err.splitlines() if line.startswith("[1/1] c0: segmented")]) == 1
    assert "\x1b" not in said.err, "no progress bar where there is no terminal"


def test_quiet_leaves_warnings_and_errors(data, bundle, capsys):
    assert infer(data, bundle, "--quiet") == ExitCode.DONE
    assert not capsys.readouterr().err
    (data / "c0/c0-t1c.nii.gz").unlink()
    assert infer(data, bundle, "--quiet") == ExitCode.INPUT
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: case c0: t1c missing")


COMMANDS = ["study", "infer", "fuse", "check", "report", "view", "export-dicom", "self-test", "info"]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_takes_the_general_options(command, capsys):
    assert run([command, "--help"]) == ExitCode.DONE
    text = capsys.readouterr().out
    for option in ("--version", "--verbose", "-v", "--quiet", "-q", "--log-format", "--log_format"):
        assert option in text, option
    assert run([command, "--version"]) == ExitCode.DONE
    assert capsys.readouterr().out.startswith("metseg ")
    assert run([command, "--log-format", "yaml"]) == ExitCode.USAGE


@pytest.mark.parametrize("place", ["before", "behind"])
@pytest.mark.parametrize(
    ("options", "lines"),
    [
        ([], 1),
        (["--quiet"], 0),
        (["-q"], 0),
        (["--verbose"], 1),
        (["--log-format=json"], 1),
        (["--log_format", "json"], 1),
    ],
)
def test_general_options_hold_before_a_command_and_behind_it(data, bundle, capsys, place, options, lines):  # noqa: PLR0917 - fixtures
    check = ["check", f"--data-path={data}", f"--weights={bundle}"]
    assert run([*options, *check] if place == "before" else [*check, *options]) == ExitCode.DONE
    said = [line for line in capsys.readouterr().err.splitlines() if "0 errors" in line]
    assert len(said) == lines
    assert all(line.startswith("{") == ("json" in "".join(options)) for line in said)
    assert all(("metseg.cli.check:" in line) == (options == ["--verbose"]) for line in said)


def test_what_stands_behind_a_command_adds_to_what_stands_before_it(data, bundle, capsys):
    arguments = ["--log-format=json", "infer", f"--data-path={data}", f"--weights={bundle}", "--quiet"]
    (data / "c0/c0-t1c.nii.gz").unlink()
    assert run([*arguments, f"--output-path={data.parent / 'out'}"]) == ExitCode.INPUT
    (line,) = capsys.readouterr().err.splitlines()
    assert json.loads(line)["level"] == "error"


def test_verbose_says_when_and_which_module(data, bundle, capsys):
    assert infer(data, bundle, "--verbose") == ExitCode.DONE
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "c0: segmented" in line]
    assert "metseg.cli.progress" in line
    assert line[:2] == "20", "begins with the date"


def test_json_lines_are_one_object_each(data, bundle, capsys):
    (data / "c1").mkdir()
    assert infer(data, bundle, "--log-format", "json") == ExitCode.DONE
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert all(set(line) == {"time", "level", "logger", "message"} for line in lines)
    assert {line["level"] for line in lines} == {"info", "warning"}
    assert infer(data / "c1", bundle, "--log-format=json") == ExitCode.INPUT
    (failed,) = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert failed["level"] == "error"
    assert "->" in failed["message"], "the next step"


def test_check_says_what_it_does_before_it_reads(data, bundle, capsys):
    assert run(["check", f"--data-path={data}", f"--weights={bundle}"]) == ExitCode.DONE
    assert capsys.readouterr().err.splitlines()[0] == f"checking {data}"


def test_slurm_signals_the_shell_that_becomes_metseg():
    assert "#SBATCH --signal=B:TERM@" in (ROOT / "scripts/infer.sbatch").read_text(), "without B: only steps hear it"


@pytest.mark.parametrize(("first", "index", "shard"), [("0", "0", "0/4"), ("4", "6", "2/4")])
def test_a_slurm_array_gives_each_job_its_shard(tmp_path, first, index, shard):
    job = {"SLURM_ARRAY_TASK_ID": index, "SLURM_ARRAY_TASK_MIN": first, "SLURM_ARRAY_TASK_COUNT": "4"}
    said = subprocess.run(
        [ROOT / "scripts/infer.sbatch", "my cases", tmp_path / "labels", "report"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **job, "METSEG": "printf %s\\n", "SLURM_CPUS_PER_TASK": "3"},
    ).stdout.splitlines()
    assert said == [
        "infer", "--data-path", "my cases", "--output-path", str(tmp_path / "labels"), "--report-dir", "report",
        "--shard", shard, "--on-error", "skip", "--resume",
    ]  # fmt: skip


def batch_lines(capsys, records):
    configure_logging()
    progress = BatchProgress(len(records))
    for record in records:
        progress.case_done(record)
    return capsys.readouterr().err.splitlines()


def test_many_warnings_are_one_line_a_case(capsys):
    """A caller that drains only stdout blocks a program that fills stderr's pipe of 64 kB."""
    what = [f"{modality}: negative intensities down to -1" for modality in ("t1n", "t1c", "t2w", "t2f")]
    four = tuple(warning("negative", words) for words in what)
    lines = batch_lines(capsys, [CaseRecord(f"c{number}", "segmented", findings=four) for number in range(303)])
    assert len(lines) == 303 + SHOWN_WARNINGS + 1
    assert all("; 4 warnings" in line for line in lines if line.startswith("warning: ["))
    assert sum(line.startswith("warning: case c") for line in lines) == SHOWN_WARNINGS


def test_a_case_that_fails_is_one_line_too(capsys):
    (line,) = batch_lines(capsys, [CaseRecord("c0", "failed", error="case c0: t1c missing")])
    assert line.startswith("error: [1/1] c0: failed")
    assert line.endswith(": case c0: t1c missing")


@pytest.mark.parametrize("log_format", LogFormat)
def test_a_traceback_is_said_once(capsys, log_format):
    configure_logging(log_format=log_format)
    for number in range(3):
        try:
            _ = 1 // 0
        except ZeroDivisionError:
            logging.getLogger("metseg").exception("case c%d: unexpected", number)
    said = capsys.readouterr().err
    assert said.count("Traceback (most recent call last)") == 1
    assert said.count("ZeroDivisionError at the place of the traceback above") == 2


def test_cases_that_are_there_already_do_not_count_for_the_time_that_remains(capsys, monkeypatch):
    clock = iter([0.0, 60.0])
    monkeypatch.setattr("metseg.cli.progress.time.monotonic", lambda: next(clock))
    configure_logging()
    progress = BatchProgress(300)
    for _ in range(290):
        progress.case_present()
    progress.case_done(CaseRecord("c290", "segmented"))
    assert capsys.readouterr().err.startswith("[291/300] c290: segmented, 0 lesions, 0.0 s, 9:00 remaining")
