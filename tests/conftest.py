"""Settings that all tests share."""

import os

from hypothesis import settings

# A deadline for each example fails on a busy machine, and nothing here is a timed test.
settings.register_profile("metseg", deadline=None)
settings.load_profile("metseg")

# Tests run side by side, one thread each: several threads only wait for each other. Set before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
