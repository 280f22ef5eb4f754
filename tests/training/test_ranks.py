"""What several ranks of a run have: CPUs to prepare with, and patience with the one that prepares."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from training.ranks import Ranks

ROOT = Path(__file__).parents[2]

SLOW_FIRST_RANK = """
import os, sys, time
from datetime import timedelta
from pathlib import Path
sys.path[:0] = ["app", "."]
from training import ranks

ranks.TIMEOUT = timedelta(seconds=5)
Path(sys.argv[1], os.environ["RANK"]).touch()
while len(os.listdir(sys.argv[1])) < 2:  # or the slower import would use it up
    time.sleep(0.05)
with ranks.joined_ranks("cpu") as joined, joined.first_before_others():
    time.sleep(8 if joined.is_first else 0)
    print("done", joined.rank, flush=True)
"""


@pytest.mark.parametrize(
    ("rank", "quota", "expected"), [(0, "max", 12), (1, "max", 3), (0, "800000", 8), (1, "200000", 1)]
)
def test_preparing_processes_follow_the_machine_not_torchruns_threads(monkeypatch, tmp_path, rank, quota, expected):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(12)))
    (tmp_path / "cpu.max").write_text(f"{quota} 100000")
    monkeypatch.setattr("metseg.predict.control_groups.MOUNT", tmp_path)
    assert Ranks(rank, world=8, local_world=4).free_cpus == expected


def test_ranks_wait_longer_for_a_preparation_than_for_a_step(tmp_path):
    script, arrived = tmp_path / "slow.py", tmp_path / "arrived"
    script.write_text(SLOW_FIRST_RANK)
    arrived.mkdir()
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [*launcher, str(script), str(arrived)]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == ["done", "0", "done", "1"]
