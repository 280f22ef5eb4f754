"""What tells one system from another in training, as data; everything else is `metseg.systems`'.

A third system is one more `TrainingSystem` here. Nothing in training asks which system it is: it reads these fields.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from metseg.labels import BRATS_REGIONS, METASTASIS_REGIONS, Regions
from metseg.systems import BRATS, RADIOSURGERY, System, SystemName, system_of_regions
from training.cohort.case_ids import HEAD_PREFIX, STRIPPED_PREFIX, format_case_id
from training.cohort.ct_settings import RADIOSURGERY_ARTEFACTS, RADIOSURGERY_LESIONS

if TYPE_CHECKING:
    from training.cohort.settings import CohortSettings
    from training.cohort.simulated import SimulatedCase, Simulator


@dataclass(frozen=True, slots=True)
class ValidationScores:
    """How a run scores its validation cases.

    Attributes:
        protocol: of the score; None for the one that the recipe names.
        figures: columns of that protocol beside the score; without any, the Dice of each region over all voxels.
        without_number: what a score counts as where it is not a number; None leaves it out of the mean.
    """

    protocol: Literal["hu2019"] | None = None
    figures: tuple[str, ...] = ()
    without_number: float | None = None


@dataclass(frozen=True, slots=True)
class TrainingSystem:
    """What training knows of a system.

    Attributes:
        system: what inference knows of it.
        regions: what a network predicts whose recipe lists no regions.
        architectures: of its networks.
        losses: kinds of loss that they are trained with.
        scores: of a run's validation.
        simulate: makes a synthetic case.
        case_prefix: beginning of such a case's ID.
        cohort_defaults: sections of the cohort's settings, with the values that differ from the usual ones.
        needs_whole_batches: whether all crops of a step go through the network at once: batch norm must see the
            recipe's batch. Others go one by one on a CPU.
    """

    system: System
    regions: Regions
    architectures: frozenset[str]
    losses: frozenset[str]
    scores: ValidationScores
    simulate: "Simulator"
    case_prefix: str
    cohort_defaults: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    needs_whole_batches: bool = False

    def name_case(self, index: int) -> str:
        """The identifier of a synthetic cohort's n-th case, counted from 0."""
        return format_case_id(self.case_prefix, index)


def _simulate_stripped_head(settings: "CohortSettings", seed: int, index: int) -> "SimulatedCase":
    from training.cohort.case import generate_case  # noqa: PLC0415 - heavy

    return generate_case(settings, seed, index)


def _simulate_head_with_ct(settings: "CohortSettings", seed: int, index: int) -> "SimulatedCase":
    from training.cohort.radiosurgery_case import generate_radiosurgery_case  # noqa: PLC0415 - heavy

    return generate_radiosurgery_case(settings, seed, index)


BRATS_TRAINING: Final = TrainingSystem(
    system=BRATS,
    regions=BRATS_REGIONS,
    architectures=frozenset({"segresnet"}),
    losses=frozenset({"dice_ce"}),
    scores=ValidationScores(),
    simulate=_simulate_stripped_head,
    case_prefix=STRIPPED_PREFIX,
)

RADIOSURGERY_TRAINING: Final = TrainingSystem(
    system=RADIOSURGERY,
    regions=METASTASIS_REGIONS,
    architectures=frozenset({"unet3d", "deepmedic"}),
    losses=frozenset({"volume_aware", "dice", "cross_entropy"}),
    scores=ValidationScores("hu2019", ("precision", "recall", "lesion_recall"), without_number=0.0),
    simulate=_simulate_head_with_ct,
    case_prefix=HEAD_PREFIX,
    cohort_defaults={"lesions": RADIOSURGERY_LESIONS, "artefacts": RADIOSURGERY_ARTEFACTS},
    needs_whole_batches=True,
)

TRAINING_SYSTEMS: Final[Mapping[SystemName, TrainingSystem]] = {
    item.system.name: item for item in (BRATS_TRAINING, RADIOSURGERY_TRAINING)
}


def find_training_system(regions: Regions) -> TrainingSystem:
    """Finds the system that knows these regions.

    Raises:
        ValueError: none does.
    """
    return TRAINING_SYSTEMS[system_of_regions(regions.names).name]


def find_usual_regions(*, registers: bool) -> Regions:
    """Finds the regions of the system whose images are registered, or are not."""
    return next(item.regions for item in TRAINING_SYSTEMS.values() if item.system.is_registered == registers)
