"""Where a run's operational settings come from: options first, then the parameters file, the environment, defaults."""

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import cast, get_args

from metseg.errors import OnError, UsageError, WeightsError
from metseg.plan.bundle import PLAN_FILE, Bundle, bundle_folder, open_bundle
from metseg.plan.document import YamlFileError, read_yaml, show_value
from metseg.predict.device import DeviceChoice

logger = logging.getLogger(__name__)

PARAMETERS = ("weights", "plan", "device", "on_error")


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of a run, resolved.

    Attributes:
        bundle: weights and plan.
        device: where the networks are asked to run.
        on_error: what happens when a case can't be segmented.
    """

    bundle: Bundle
    device: DeviceChoice
    on_error: OnError


def resolve_settings(
    *,
    weights: Path | None,
    plan: str | None,
    device: str | None,
    on_error: str | None,
    parameters_file: Path | None,
    additional_files: Path | None,
) -> Settings:
    """Puts options, parameters file and environment together; the first that speaks wins.

    Raises:
        UsageError: a value is not one that exists.
        WeightsError: there is no bundle where one should be.
    """
    parameters = read_parameters(parameters_file) if parameters_file else {}
    base = parameters_file.parent if parameters_file else Path()
    if weights:
        folder = bundle_folder(weights)
    elif "weights" in parameters:
        folder = bundle_folder(parameters["weights"], base=base)
    else:
        folder = (find_bundle(additional_files) if additional_files else None) or bundle_folder()
    plan = plan or parameters.get("plan")
    if plan and not (folder / "plans" / f"{plan}.yaml").is_file() and (base / plan).is_file():
        plan = str(base / plan)
    chosen_device = device or parameters.get("device") or os.environ.get("METSEG_DEVICE") or "auto"
    chosen_on_error = on_error or parameters.get("on_error") or os.environ.get("METSEG_ON_ERROR") or "stop"
    return Settings(
        bundle=open_bundle(folder, plan),
        device=cast("DeviceChoice", _require_one_of("device", chosen_device, get_args(DeviceChoice))),
        on_error=cast("OnError", _require_one_of("on_error", chosen_on_error, get_args(OnError))),
    )


def read_parameters(path: Path) -> dict[str, str]:
    """Reads a parameters file; an empty one, as some callers pass, gives nothing. Unknown keys are warned of.

    Raises:
        UsageError: missing, not YAML, or not a mapping.
    """
    try:
        content = read_yaml(path)
    except YamlFileError as error:
        raise UsageError(f"parameters file {path}: {error}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UsageError(f"parameters file {path}: expected a mapping, found {type(content).__name__}")
    unknown = sorted(show_value(key) for key in content if key not in PARAMETERS)
    if unknown:
        logger.warning(
            "parameters file %s: unknown keys %s ignored; known: %s", path, show_value(unknown), ", ".join(PARAMETERS)
        )
    wrong = {key: content[key] for key in PARAMETERS if not isinstance(content.get(key), str | None)}
    if wrong:
        key, value = next(iter(wrong.items()))
        raise UsageError(f"parameters file {path}: {key}: expected a text, found {show_value(value)}")
    return {key: content[key] for key in PARAMETERS if content.get(key) is not None}


def find_bundle(folder: Path) -> Path | None:
    """The bundle in a folder of additional files: the folder itself, `weights/`, or the only sub-folder with a plan.

    Returns:
        None for an empty folder: MedPerf makes and mounts one when nothing was registered.

    Raises:
        WeightsError: there is no bundle among what lies there, or more than one.
    """
    if (folder / PLAN_FILE).is_file():
        return folder
    if folder.is_dir() and not any(folder.iterdir()):
        logger.info("additional files %s: empty, using the bundled weights", folder)
        return None
    found = sorted(path.parent for pattern in (f"*/{PLAN_FILE}", f"*/*/{PLAN_FILE}") for path in folder.glob(pattern))
    if len(found) != 1:
        raise WeightsError(
            f"additional files {folder}: expected one bundle ({PLAN_FILE}), found {len(found)}",
            hint="Name the bundle's folder with --weights.",
        )
    return found[0]


def _require_one_of(name: str, value: str, known: tuple[str, ...]) -> str:
    if value not in known:
        raise UsageError(f"{name}: expected one of {', '.join(known)}, found {value!r}")
    return value
