"""The folder of label maps: refused with the right advice, and warned of where it ends with the container."""

import errno
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from metseg.errors import OutputError
from metseg.run import output_folder
from metseg.run.output_folder import prepare_output, warn_of_loss


@pytest.mark.parametrize(
    ("flags", "what", "advice"),
    [(os.ST_RDONLY, "is mounted read-only", "without :ro"), (0, "may not write there", "owner or mode")],
)
def test_a_folder_that_can_not_be_written_gets_the_advice_that_helps(tmp_path, monkeypatch, flags, what, advice):
    monkeypatch.setattr(os, "access", lambda *_: False)
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_flag=flags))
    with pytest.raises(OutputError, match=what) as raised:
        prepare_output(tmp_path)
    assert advice in raised.value.hint


def test_a_folder_that_can_not_be_made_on_a_read_only_root_must_be_mounted(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "mkdir", refuse)
    with pytest.raises(OutputError, match="can't be made: Read-only file system") as raised:
        prepare_output(tmp_path / "out")
    assert raised.value.hint.startswith("Mount the output folder")


@pytest.fixture
def in_image(tmp_path, monkeypatch):
    """Runs as in the image, where the given places are mounted."""
    monkeypatch.setenv(output_folder.IMAGE_VARIABLE, "yes")
    monkeypatch.setattr(output_folder, "MOUNTS", tmp_path / "mountinfo")

    def mount(*places):
        lines = [f"36 35 0:{number} / {place} rw - overlay overlay rw" for number, place in enumerate(places)]
        (tmp_path / "mountinfo").write_text("\n".join(["35 1 0:9 / / rw - overlay overlay rw", *lines]))

    return mount


@pytest.mark.parametrize(
    ("mounts", "output", "lost"),
    [
        ((), "/output", True),
        (("/input", "/output2", "/output/deeper"), "/output", True),
        (("/output",), "/output", False),
        (("/mlcube_io2",), "/mlcube_io2/labels", False),
        (("/my\\040labels",), "/my labels", False),
        (("/input",), "/results/labels", True),
    ],
)
def test_label_maps_that_end_with_the_container_are_warned_of(in_image, caplog, mounts, output, lost):
    in_image(*mounts)
    warn_of_loss(Path(output))
    assert [f"output {output} is not mounted" in text for text in caplog.messages] == ([True] if lost else [])


def test_outside_the_image_nobody_asks_for_a_mount(in_image, monkeypatch, caplog, tmp_path):
    in_image()
    monkeypatch.delenv(output_folder.IMAGE_VARIABLE)
    warn_of_loss(tmp_path)
    assert not caplog.messages


def test_where_the_system_does_not_tell_its_mounts_nothing_is_warned_of(in_image, caplog, tmp_path):
    assert in_image
    warn_of_loss(tmp_path)
    assert not caplog.messages
