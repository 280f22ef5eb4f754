"""Settings that all tests share."""

from hypothesis import settings

# A deadline for each example fails on a busy machine, and nothing here is a timed test.
settings.register_profile("metseg", deadline=None)
settings.load_profile("metseg")
