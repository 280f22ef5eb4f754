"""`python -m training tune`: threshold and size rules of a bundle, tried on validation cases."""

import json
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer
from rich.console import Console
from rich.table import Table

from metseg.cli.choices import LabelsOption
from metseg.predict.device import DeviceChoice

if TYPE_CHECKING:
    from metseg.labels import LabelConvention

logger = logging.getLogger(__name__)

DECIMALS = 3


def tune(
    weights: Annotated[Path, typer.Argument(help="The bundle.")],
    *,
    data: Annotated[list[Path], typer.Option(help="Folder of cases with -seg that training did not see.")],
    output: Annotated[Path, typer.Option(help="JSON: figures by case and setting; a case in it is not run again.")],
    plan: Annotated[str | None, typer.Option(help="Plan of the bundle, or a file: window, passes, fusion.")] = None,
    labels: LabelsOption = None,
    max_false_positives: Annotated[float, typer.Option(help="A case, for the sensitive setting.")] = 5.0,
    device: Annotated[DeviceChoice, typer.Option(help="Where.")] = "auto",
) -> None:
    """Scores every combination of threshold and size rules, and names the best for each protocol."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    from metseg.files.atomic import write_atomically  # noqa: PLC0415 - heavy
    from metseg.plan.bundle import open_bundle  # noqa: PLC0415
    from metseg.predict.device import choose_device  # noqa: PLC0415
    from metseg.predict.engine import load_engine  # noqa: PLC0415
    from training.data.cases import case_key, find_plan_cases  # noqa: PLC0415
    from training.tune.judging import JUDGES  # noqa: PLC0415
    from training.tune.tuning import best_settings, list_settings, summarise, try_case  # noqa: PLC0415

    bundle = open_bundle(weights, plan)
    usable = find_plan_cases(data, bundle.plan, cast("LabelConvention | None", labels))
    cases = {case_key(files): files for files in usable.values()}
    engine = load_engine(bundle, choose_device(device))
    judge = JUDGES[bundle.plan.system.name]
    settings = list_settings(judge)
    names = {setting: f"{setting.threshold:g} {setting.rules}" for setting in settings}
    done = json.loads(output.read_text(encoding="utf-8")) if output.exists() else {}
    if done.get("plan_sha256") != engine.plan.sha256:
        done = {"plan_sha256": engine.plan.sha256, "cases": {}}
    for key, files in cases.items():
        if key not in done["cases"]:
            found = try_case(files, engine, judge)
            done["cases"][key] = {names[setting]: dict(figures) for setting, figures in found.items()}
            write_atomically(output, (json.dumps(done, indent=1) + "\n").encode())
            logger.info("%s", files.case_id)
    summaries = {setting: summarise([done["cases"][key][names[setting]] for key in cases]) for setting in settings}
    table = Table("threshold", "rules", *next(iter(summaries.values())), "best for")
    best = best_settings(summaries, judge, max_false_positives)
    for setting, summary in summaries.items():
        cells = [f"{value:.{DECIMALS}f}" for value in summary.values()]
        chosen = ", ".join(name for name, one in best.items() if one == setting)
        table.add_row(f"{setting.threshold:g}", setting.rules, *cells, chosen)
    Console(width=140).print(table)
    typer.echo(f"{len(cases)} cases; report on other cases than these")
