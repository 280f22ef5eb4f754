"""`metseg self-test`: within a minute, whether this image works on this machine."""

import logging
from typing import TYPE_CHECKING, Annotated

import typer

from metseg.cli.infer import WeightsOption
from metseg.errors import ExitCode
from metseg.predict.device import DeviceChoice

if TYPE_CHECKING:
    from metseg.predict.device import Device
    from metseg.selftest.verdict import Verdict

logger = logging.getLogger(__name__)


def self_test(
    weights: WeightsOption = None,
    device: Annotated[DeviceChoice, typer.Option("--device", help="Where the networks run.")] = "auto",
) -> int:
    """Segments a bundled phantom and compares with the stored result; exits with 5 when this one differs."""
    from metseg.plan.bundle import bundle_folder, open_bundle  # noqa: PLC0415 - heavy
    from metseg.predict.device import choose_device  # noqa: PLC0415
    from metseg.selftest.expected import read_expected  # noqa: PLC0415
    from metseg.selftest.verdict import run_self_test  # noqa: PLC0415

    bundle = open_bundle(bundle_folder(weights))
    expected = read_expected(bundle.folder)
    verdicts = run_self_test(bundle, expected, _list_devices(choose_device(device)))
    for verdict in verdicts:
        typer.echo(_format_verdict(verdict))
    if all(verdict.passed for verdict in verdicts):
        typer.echo("self-test passed")
        return int(ExitCode.DONE)
    logger.error("self-test FAILED: do not trust label maps made here; please report the lines above")
    return int(ExitCode.DEVICE)


def _list_devices(chosen: "Device") -> "tuple[Device, ...]":
    """The device as it will be used; a CPU that calculates in bfloat16 also in float32, where the result is exact."""
    from dataclasses import replace  # noqa: PLC0415

    if chosen.is_cuda or chosen.precision == "float32":
        return (chosen,)
    return chosen, replace(chosen, precision="float32")


def _format_verdict(verdict: "Verdict") -> str:
    exact = "every decided voxel as stored" if verdict.is_exact else "not every decided voxel as stored"
    demanded = "" if verdict.must_be_exact else " (not demanded here)"
    return (
        f"{verdict.device}: {'passed' if verdict.passed else 'FAILED'}: {verdict.lesions} lesions, expected "
        f"{verdict.expected_lesions}; Dice {verdict.dice:.4f}; {exact}{'' if verdict.is_exact else demanded}; "
        f"{verdict.elapsed_s:.1f} s"
    )
