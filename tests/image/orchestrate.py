"""Runs the BraTS orchestrator on our registry entry; called with the Python of its own environment.

orchestrate.py REGISTRY ENTRY single CASE_FOLDER OUTPUT_FILE
orchestrate.py REGISTRY ENTRY batch  DATA_FOLDER OUTPUT_FOLDER
"""

import enum
import sys
from pathlib import Path

from brats.constants import Algorithms
from brats.core.segmentation_algorithms import SegmentationAlgorithmWith4Modalities


class OurAlgorithms(Algorithms):
    """The entries of mlcube/metastases.yml, as the orchestrator's own enumerations list theirs."""

    METSEG = "metseg"
    METSEG_2024_CONVENTION = "metseg_2024_convention"


def main(registry: str, entry: str, mode: str, source: str, target: str) -> None:
    """What `MetastasesSegmenter` does, with our registry file in place of the packaged one."""
    segmenter = SegmentationAlgorithmWith4Modalities(
        algorithm=OurAlgorithms(entry), algorithms_file_path=Path(registry), force_cpu=True
    )
    if mode == "batch":
        segmenter.infer_batch(data_folder=source, output_folder=target)
        return
    case = Path(source)
    images = {modality: case / f"{case.name}-{modality}.nii.gz" for modality in ("t1c", "t1n", "t2f", "t2w")}
    segmenter.infer_single(**images, output_file=target)


if __name__ == "__main__":
    assert issubclass(OurAlgorithms, enum.Enum)
    main(*sys.argv[1:])
