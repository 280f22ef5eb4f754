"""metseg: finds and segments brain metastases on MRI, from a folder of cases to a folder of label maps."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("metseg")
except PackageNotFoundError:  # run from a source tree that was never installed
    __version__ = "0+unknown"
