"""Errors leave worker processes whole: class, message, hint and exit code."""

import importlib
import inspect
import os
import pkgutil
import signal
from multiprocessing.reduction import ForkingPickler

import pytest

import evaluation
import metseg
import training
from evaluation.processes import map_in_processes
from metseg.errors import DeviceError, MetsegError, UsageError
from metseg.files.header import ImageError


class FussyError(UsageError):
    """As a class of a later day may be: arguments of its own, none of them the message."""

    def __init__(self, count: int, *, where: str) -> None:
        super().__init__(f"{count} in {where}", hint="Count again.")
        self.count = count


def every_error_class():
    for package in (metseg, evaluation, training):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    classes, queue = [], [MetsegError]
    while queue:
        found = queue.pop()
        classes.append(found)
        queue += found.__subclasses__()
    return classes


def make(kind):
    """An error of this class, each argument told from the others."""
    arguments = list(inspect.signature(kind).parameters.values())
    named = {item.name: f"<{item.name}>" for item in arguments if item.kind is item.KEYWORD_ONLY}
    return kind(*[f"<{item.name}>" for item in arguments if item.kind is item.POSITIONAL_OR_KEYWORD], **named)


def content(error):
    return type(error), str(error), error.hint, error.exit_code, vars(error)


def test_every_error_class_survives_pickling():
    classes = every_error_class()
    assert {ImageError, DeviceError, FussyError} <= set(classes)
    assert len(classes) >= 11
    for kind in classes:
        error = make(kind)
        assert content(ForkingPickler.loads(ForkingPickler.dumps(error))) == content(error), kind


def raise_image_error(_):
    raise ImageError("labels", "case P1: holds 5", hint="Give a label map.")


def end_abruptly(_):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_error_in_a_worker_process_is_the_callers(jobs):
    with pytest.raises(ImageError, match="case P1: holds 5") as caught:
        list(map_in_processes(raise_image_error, range(3), jobs, start="fork"))
    assert (caught.value.code, caught.value.hint) == ("labels", "Give a label map.")


def test_a_killed_worker_process_is_named():
    with pytest.raises(DeviceError, match="ended from outside") as caught:
        list(map_in_processes(end_abruptly, range(3), 2, start="fork"))
    assert "memory" in caught.value.hint
