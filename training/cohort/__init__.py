"""Synthetic BraTS-METS cases from the ICBM152 template: docs/cohort.md says what is simulated and from which source."""
