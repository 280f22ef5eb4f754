"""Synthetic BraTS-METS cases from the ICBM152 template: docs/cohort.md says what is simulated and from which source."""

from training.cohort.case import SyntheticCase, generate_case
from training.cohort.settings import CohortSettings, load_settings

__all__ = ["CohortSettings", "SyntheticCase", "generate_case", "load_settings"]
