"""Runs the BraTS orchestrator on our registry entry; called with the Python of its own environment.

orchestrate.py [--backend=singularity] REGISTRY ENTRY single CASE_FOLDER OUTPUT_FILE
orchestrate.py [--backend=singularity] REGISTRY ENTRY batch  DATA_FOLDER OUTPUT_FOLDER
"""

import argparse
import enum
from pathlib import Path

from brats.constants import Algorithms, Backends
from brats.core.segmentation_algorithms import SegmentationAlgorithmWith4Modalities


class OurAlgorithms(Algorithms):
    """The entries of mlcube/metastases.yml, as the orchestrator's own enumerations list theirs."""

    METSEG = "metseg"
    METSEG_2024_CONVENTION = "metseg_2024_convention"


def main() -> None:
    """What `MetastasesSegmenter` does, with our registry file in place of the packaged one."""
    parser = argparse.ArgumentParser()
    parser.add_argument("registry", type=Path)
    parser.add_argument("entry", type=OurAlgorithms)
    parser.add_argument("mode", choices=("single", "batch"))
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--backend", type=Backends, default=Backends.DOCKER)
    asked = parser.parse_args()
    segmenter = SegmentationAlgorithmWith4Modalities(
        algorithm=asked.entry, algorithms_file_path=asked.registry, force_cpu=True
    )
    if asked.mode == "batch":
        segmenter.infer_batch(data_folder=asked.source, output_folder=asked.target, backend=asked.backend)
        return
    case = asked.source
    images = {modality: case / f"{case.name}-{modality}.nii.gz" for modality in ("t1c", "t1n", "t2f", "t2w")}
    segmenter.infer_single(**images, output_file=asked.target, backend=asked.backend)


if __name__ == "__main__":
    assert issubclass(OurAlgorithms, enum.Enum)
    main()
