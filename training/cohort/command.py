"""`python -m training cohort`."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from rich.console import Console
from rich.table import Table

from metseg.cli.choices import LabelsOption
from metseg.errors import UsageError
from training.cohort.settings import MODALITIES, SizeName, load_settings
from training.systems import TRAINING_SYSTEMS

if TYPE_CHECKING:
    from metseg.labels import LabelConvention
    from training.cohort.simulated import Simulator


def cohort(
    *,
    cases: Annotated[int, typer.Option(min=1, help="Number of cases.")],
    output: Annotated[Path, typer.Option(help="Folder for the cases; made if missing.")],
    seed: Annotated[int, typer.Option(min=0, help="Seed of the cohort.")] = 0,
    jobs: Annotated[int, typer.Option(min=1, help="Processes; the files do not depend on it.")] = 1,
    first: Annotated[int, typer.Option(min=0, help="Number of the first case.")] = 0,
    size: Annotated[SizeName, typer.Option(help="full: 240x240x155; tiny: 96x96x64 with a small brain.")] = "full",
    settings: Annotated[Path | None, typer.Option(help="YAML on top of the default distributions.")] = None,
    modalities: Annotated[
        str,
        typer.Option(
            help="t1n,t1c,t2w,t2f: skull-stripped MRI; ct,t1c: a planning CT and the whole head's T1; "
            "ct,t1n,t1c,t2w,t2f: whole heads in all images, with the brain's mask."
        ),
    ] = "t1n,t1c,t2w,t2f",
) -> None:
    """Simulates cases: <ID>/<ID>-{t1n,t1c,t2w,t2f,seg}.nii.gz, or those of --modalities."""
    from training.cohort.writing import write_cohort  # noqa: PLC0415  reads the template: not for --help

    console = Console()
    simulate, defaults = _find_simulator(modalities)
    chosen = load_settings(settings, size=size, defaults=defaults)
    made = write_cohort(chosen, cases=cases, seed=seed, output=output, jobs=jobs, first=first, simulate=simulate)
    for written in made:
        console.print(f"{written.case_id}  {len(written.lesions)} lesions", highlight=False)


def _find_simulator(modalities: str) -> tuple["Simulator", Mapping[str, Mapping[str, Any]]]:
    """What makes cases with these images, and the values that such a cohort's settings begin with."""
    wanted = frozenset(modalities.split(","))
    systems = [item for item in TRAINING_SYSTEMS.values() if frozenset(item.system.modalities) == wanted]
    if systems:
        return systems[0].simulate, systems[0].cohort_defaults
    if wanted != {"ct", *MODALITIES}:
        raise UsageError(f"--modalities {modalities}: expected t1n,t1c,t2w,t2f or ct,t1c or ct,t1n,t1c,t2w,t2f")
    from training.cohort.head_case import generate_head_case  # noqa: PLC0415  reads the template: not for --help

    return generate_head_case, {}


def measure(
    folder: Annotated[Path, typer.Argument(help="Cases with -seg and -t1c, simulated or real.")],
    labels: LabelsOption = None,
) -> None:
    """Prints what a cohort contains: counts, volumes, parts, contrast."""
    from training.cohort.measure import describe, measure_cohort  # noqa: PLC0415  scipy: not for --help

    table = Table("", "min / 10 % / median / 90 % / max")
    said = cast("LabelConvention | None", labels)
    for row in describe(list(measure_cohort(folder, convention=said))):
        table.add_row(*row)
    Console().print(table)


def implant(
    data: Annotated[list[Path], typer.Option(help="Folder of real cases with -seg.")],
    *,
    output: Annotated[Path, typer.Option(help="Folder of the variants, <patient>-101 and so on.")],
    variants: Annotated[int, typer.Option(min=1, help="Of each case.")] = 3,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the lesions.")] = 0,
    settings: Annotated[Path | None, typer.Option(help="YAML on top of the default distributions.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="IDs to use; default all.")] = None,
    labels: LabelsOption = None,
) -> None:
    """Puts simulated metastases, and cavities if the settings ask, into real cases, which keep their own labels."""
    from metseg.files.discovery import discover_cases  # noqa: PLC0415
    from metseg.labels import BRATS_REGIONS  # noqa: PLC0415
    from training.cohort.implant import write_implants  # noqa: PLC0415  scipy: not for --help
    from training.references import settle_labels  # noqa: PLC0415

    found = settle_labels(
        [files for folder in data for files in discover_cases(folder)],
        BRATS_REGIONS,
        cast("LabelConvention | None", labels),
    )
    unknown = sorted(set(only or ()) - {files.case_id for files in found})
    if unknown:
        raise UsageError(
            f"--only {', '.join(unknown)}: no such case among the {len(found)} of {', '.join(map(str, data))}",
            hint="An ID is the name of the case's folder.",
        )
    cases = tuple(files for files in found if not only or files.case_id in only)
    chosen = load_settings(settings)
    for case in write_implants(cases, chosen, variants=variants, seed=seed, output=output):
        Console().print(f"{case.case_id}  {len(case.lesions)} lesions added", highlight=False)
