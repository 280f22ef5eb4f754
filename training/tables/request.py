"""How the tables are made: folders, budget, device."""

from dataclasses import dataclass
from pathlib import Path

from metseg.labels import LabelConvention
from metseg.predict.device import DeviceChoice
from training.runs.files import SPLIT_FILE


@dataclass(frozen=True, slots=True)
class TablesRequest:
    """How the tables are made.

    Attributes:
        output: folder of everything: cohort/, prepared/, runs/, bundle_<seed>/, scores/.
        data: folders of real cases in place of the synthetic cohort.
        hours: for everything, one process after another; None trains to the experiment's steps or the recipes' epochs.
        max_steps: of each run; for trials.
        only: models or runs to train; the tables are not made then.
        device: where.
        jobs: processes that make the cohort.
        threads: CPU threads of torch; None for all.
        convention: what label 4 of the references of `data` means; needed where they leave it open.
    """

    output: Path
    data: tuple[Path, ...] = ()
    hours: float | None = None
    max_steps: int | None = None
    only: tuple[str, ...] = ()
    device: DeviceChoice = "auto"
    jobs: int = 1
    threads: int | None = None
    convention: LabelConvention | None = None

    @property
    def cohort(self) -> Path:
        """Folder of the synthetic cohort."""
        return self.output / "cohort"

    @property
    def cases_in(self) -> tuple[Path, ...]:
        """Folders of the cases that the runs share."""
        return self.data or (self.cohort,)

    @property
    def cache(self) -> Path:
        """Folder of prepared volumes."""
        return self.output / "prepared"

    @property
    def scores(self) -> Path:
        """Folder of the cases' scores."""
        return self.output / "scores"

    @property
    def split(self) -> Path:
        """File of the split that all runs share."""
        return self.output / SPLIT_FILE

    def run_folder(self, run: str) -> Path:
        """Folder of a run."""
        return self.output / "runs" / run

    def bundle(self, seed: int) -> Path:
        """Folder of the bundle of one seed's models."""
        return self.output / f"bundle_{seed}"
