import csv
import json

import nibabel as nib
import numpy as np
import pytest

from metseg.__main__ import run
from metseg.errors import ExitCode
from metseg.files.discovery import discover_cases
from metseg.plan.bundle import open_bundle
from metseg.predict.device import choose_device
from metseg.predict.engine import load_engine
from metseg.report import batch_report
from metseg.report.case_store import read_case_report
from metseg.report.from_segmentation import collect_votes, compute_agreement
from metseg.report.run_json import RunJson
from metseg.run.pipeline import segment
from metseg.space.blocks import paste
from metseg.space.resampling import volume_to_source
from phantoms import phantom
from support import ALL, SUB, folder_bytes, write_bundle, write_case


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return write_bundle(tmp_path_factory.mktemp("weights") / "b", channels=(ALL, SUB))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cases")
    for number in range(3):
        write_case(folder, f"c{number}", images=phantom(seed=number))
    return folder


def infer(data, bundle, output, *options):
    return run(
        ["infer", f"--data-path={data}", f"--weights={bundle}", f"--output-path={output}", "--device=cpu", *options]
    )


@pytest.fixture(scope="module")
def done(data, bundle, tmp_path_factory):
    folder = tmp_path_factory.mktemp("done")
    options = [f"--report-dir={folder / 'r'}", "--save=probabilities,agreement"]
    assert infer(data, bundle, folder / "out", *options) == ExitCode.DONE
    return folder


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_batch_reports_every_case(done):
    content = RunJson.model_validate_json((done / "r/run.json").read_bytes())
    assert [case.outcome for case in content.cases] == ["segmented"] * 3
    assert content.exit_code == 0
    assert (content.device.name, content.bundle.plan) == ("cpu", "test")
    assert len(content.bundle.members[0].sha256) == len(content.bundle.plan_sha256) == 64
    for case in content.cases:
        assert set(case.stage_s) == {"read", "prepare", "predict", "decide", "restore", "write"}
        assert case.elapsed_s == pytest.approx(sum(case.stage_s.values()))
        assert case.peak_memory_mib > 50
    assert [row["case_id"] for row in rows_of(done / "r/cases.csv")] == ["c0", "c1", "c2"]
    assert "open in the viewer" in (done / "r/report.html").read_text()


def test_lesions_carry_the_members_votes(done):
    rows = rows_of(done / "r/lesions.csv")
    assert rows
    for row in rows:
        assert 0 <= float(row["vote_share"]) <= 1
        assert 0 < float(row["mean_probability_wt"]) <= 1
        assert int(row["finders_members"]) in {0, 1, 2}


def test_an_added_member_is_reported_as_it_is_fused(data, tmp_path):
    """Its probabilities join by maximum, not by the mean; where it is silent it does not vote against the others."""
    folder = write_bundle(tmp_path / "b", channels=(ALL, SUB), fusion={"added_by_maximum": ["m1"]})
    engine = load_engine(open_bundle(folder), choose_device("cpu", precision="float32"))
    (files, *_) = discover_cases(data)
    segmented = segment(files, engine)
    votes = collect_votes(segmented, engine.plan)
    predictions, resampling = segmented.decision.predictions, segmented.resampling
    voting, added = (member.probabilities[0] for member in predictions.members)
    expected = paste(np.maximum(voting, added), predictions.layout.start, resampling.network.shape)
    np.testing.assert_allclose(votes.probability, volume_to_source(expected, resampling), atol=1e-6)
    assert (len(votes.member_maps), len(votes.added_maps)) == (1, 1)
    share = compute_agreement(votes, engine.plan.regions)
    called, silent = votes.added_maps[0] > 0, votes.added_maps[0] == 0
    assert called.any()
    assert set(np.unique(share[called])) <= {0.5, 1.0}
    assert np.array_equal(share[silent], votes.member_maps[0][silent] > 0)


def test_saved_volumes_lie_on_the_source_grid(done, data):
    source = nib.load(data / "c0/c0-t1c.nii.gz")
    folder = done / "r/cases/c0"
    for name in ("probability-wt", "probability-tc", "probability-et", "agreement-wt"):
        image = nib.load(folder / f"{name}.nii.gz")
        np.testing.assert_array_equal(image.affine, source.affine)
        values = np.asanyarray(image.dataobj)
        assert values.min() >= 0
        assert values.max() <= 1
        np.testing.assert_array_equal(values, values.astype(np.float16))
    labels = np.asanyarray(nib.load(done / "out/c0.nii.gz").dataobj)
    agreement = np.asanyarray(nib.load(folder / "agreement-wt.nii.gz").dataobj)
    assert set(np.unique(agreement)) <= {0, 0.5, 1}
    assert (agreement[labels > 0] > 0).mean() > 0.9
    assert read_case_report(done / "r", "c0").saved == (
        "probability-wt.nii.gz", "probability-tc.nii.gz", "probability-et.nii.gz", "agreement-wt.nii.gz",
    )  # fmt: skip


def test_votes_are_those_of_the_pipeline_where_nothing_is_resampled(done, data, bundle):
    engine = load_engine(open_bundle(bundle), choose_device("cpu"))
    expected = segment(discover_cases(data)[0], engine).decision.agreement
    found = read_case_report(done / "r", "c0").lesions
    key = lambda item: (item.voxels, round(item.vote_share, 6), item.finders)  # noqa: E731
    assert sorted(map(key, found)) == sorted(map(key, expected))


def test_the_report_changes_no_label_map_and_nothing_is_left_beside_them(done, data, bundle, tmp_path):
    assert infer(data, bundle, tmp_path / "out") == ExitCode.DONE
    assert folder_bytes(tmp_path / "out") == folder_bytes(done / "out")


def test_a_blank_case_is_in_the_report_and_said_to_be_blank(bundle, tmp_path, capsys):
    for number in range(2):
        write_case(tmp_path / "data", f"c{number}", images=phantom(seed=number))
    (tmp_path / "data/c1/c1-t1c.nii.gz").unlink()
    options = [f"--report-dir={tmp_path / 'r'}", "--on-error=blank"]
    assert infer(tmp_path / "data", bundle, tmp_path / "out", *options) == ExitCode.DONE
    good, blank = rows_of(tmp_path / "r/cases.csv")
    assert (good["outcome"], blank["outcome"]) == ("segmented", "blank")
    assert blank["flags"] == "blank because failed"
    assert blank["wt_volume_mm3"] == ""
    assert "t1c missing" in blank["error"]
    page = (tmp_path / "r/report.html").read_text()
    assert "does not mean that there is no tumour" in page
    assert "blank because failed" in capsys.readouterr().err


def test_a_batch_that_stops_reports_what_was_done(bundle, tmp_path):
    for number in range(3):
        write_case(tmp_path / "data", f"c{number}", images=phantom(seed=number))
    (tmp_path / "data/c2/c2-t1c.nii.gz").unlink()
    assert infer(tmp_path / "data", bundle, tmp_path / "out", f"--report-dir={tmp_path / 'r'}") == ExitCode.INPUT
    assert [row["case_id"] for row in rows_of(tmp_path / "r/cases.csv")] == ["c0", "c1"]
    assert json.loads((tmp_path / "r/run.json").read_text())["exit_code"] == ExitCode.INPUT


@pytest.mark.parametrize("broken", ["describe_and_draw", "write_case_report", "write_report", "make_folder"])
def test_whatever_breaks_in_the_report_the_label_maps_and_the_exit_code_stay(  # noqa: PLR0917
    broken, data, bundle, done, tmp_path, monkeypatch
):
    def fail(*_arguments, **_options):
        raise (
            RuntimeError("broken on purpose")
            if broken != "make_folder"
            else batch_report.MetsegError("broken on purpose")
        )

    monkeypatch.setattr(batch_report, broken, fail)
    assert infer(data, bundle, tmp_path / "out", f"--report-dir={tmp_path / 'r'}") == ExitCode.DONE
    assert folder_bytes(tmp_path / "out") == folder_bytes(done / "out")


def test_a_report_folder_that_can_not_be_made_is_a_warning(data, bundle, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert infer(data, bundle, tmp_path / "out", f"--report-dir={tmp_path / 'file/r'}") == ExitCode.DONE
    assert "no report" in capsys.readouterr().err
    assert len(list((tmp_path / "out").iterdir())) == 3


def test_a_stopped_batch_has_a_report_whatever_its_cases_are_called(bundle, tmp_path):
    for name in ("a\udcff", "b"):
        write_case(tmp_path / "data", name, images=phantom(seed=1))
    (tmp_path / "data" / "b" / "b-t1c.nii.gz").write_bytes(b"junk")
    assert infer(tmp_path / "data", bundle, tmp_path / "out", f"--report-dir={tmp_path / 'r'}") == ExitCode.INPUT
    (case,) = RunJson.model_validate_json((tmp_path / "r/run.json").read_bytes()).cases
    assert case.outcome == "segmented"


def test_a_resumed_batch_keeps_what_the_first_run_knew(data, bundle, tmp_path):
    options = [f"--report-dir={tmp_path / 'r'}"]
    assert infer(data, bundle, tmp_path / "out", *options) == ExitCode.DONE
    before = rows_of(tmp_path / "r/lesions.csv")
    (tmp_path / "out/c1.nii.gz").unlink()
    assert infer(data, bundle, tmp_path / "out", "--resume", *options) == ExitCode.DONE
    assert rows_of(tmp_path / "r/lesions.csv") == before
    assert [row["outcome"] for row in rows_of(tmp_path / "r/cases.csv")] == ["present", "segmented", "present"]


def test_label_maps_of_before_the_report_are_measured(data, bundle, tmp_path):
    assert infer(data, bundle, tmp_path / "out") == ExitCode.DONE
    assert infer(data, bundle, tmp_path / "out", "--resume", f"--report-dir={tmp_path / 'r'}") == ExitCode.DONE
    rows = rows_of(tmp_path / "r/cases.csv")
    assert [row["outcome"] for row in rows] == ["present"] * 3
    assert all(row["lesions_26connected_wt"] for row in rows)


def test_shards_share_a_report(data, bundle, done, tmp_path):
    for shard in ("0/2", "1/2"):
        options = [f"--report-dir={tmp_path / 'r'}", f"--shard={shard}"]
        assert infer(data, bundle, tmp_path / "out", *options) == ExitCode.DONE
    rows = rows_of(tmp_path / "r/cases.csv")
    assert sorted(row["case_id"] for row in rows) == ["c0", "c1", "c2"]
    key = lambda row: (row["case_id"], int(row["lesion_26connected_wt"]))  # noqa: E731
    assert sorted(rows_of(tmp_path / "r/lesions.csv"), key=key) == rows_of(done / "r/lesions.csv")
    first, second = (json.loads((tmp_path / f"r/run-{index}-of-2.json").read_text()) for index in (0, 1))
    assert [len(first["cases"]), len(second["cases"])] == [2, 1]


def test_a_case_waits_at_most_for_the_one_before_it(data, bundle, tmp_path, monkeypatch):
    alive, most = [], []
    original = batch_report.BatchReport.add

    def add(self, record, segmented):
        waiting = self._behind is not None and not self._behind[1].done()
        most.append(waiting)
        original(self, record, segmented)
        alive.append(self._executor._work_queue.qsize())

    monkeypatch.setattr(batch_report.BatchReport, "add", add)
    assert infer(data, bundle, tmp_path / "out", f"--report-dir={tmp_path / 'r'}") == ExitCode.DONE
    assert max(alive) <= 1
    assert len(most) == 3


def test_save_names_what_it_knows(data, bundle, tmp_path):
    options = [f"--report-dir={tmp_path / 'r'}", "--save=probabilities,everything"]
    assert infer(data, bundle, tmp_path / "out", *options) == ExitCode.USAGE
    assert infer(data, bundle, tmp_path / "out", "--save=agreement") == ExitCode.USAGE
    assert not (tmp_path / "out").exists()
