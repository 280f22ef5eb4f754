"""The choices that options of the command line offer. Nothing is imported, so that `--help` answers fast."""

from typing import Literal

SystemName = Literal["brats", "radiosurgery"]
"""Names of the systems that `metseg.systems` declares."""

LabelGrid = Literal["t1c", "ct"]
"""The image whose grid a label map takes: the source image, or the planning CT."""

OnError = Literal["stop", "skip", "blank"]
"""What happens when a case can't be segmented: the batch stops, the case is skipped, or a blank map is written."""
