"""Which patient a case is of."""

import re

_TIMEPOINT = re.compile(r"^(?P<patient>.+)-\d{3}$")
"""The challenge's IDs end in the timepoint: BraTS-MET-00001-000."""


def find_patient(case_id: str) -> str:
    """The case's patient: its ID without the three digits of the timepoint; the whole ID where there are none."""
    match = _TIMEPOINT.match(case_id)
    return match["patient"] if match else case_id
