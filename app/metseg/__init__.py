"""metseg: finds and segments brain metastases on MRI, from a folder of cases to a folder of label maps."""


def __getattr__(name: str) -> str:
    """`__version__`, looked up when it is asked for: that imports what `metseg --help` can do without."""
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415 - see above

    try:
        return version("metseg")
    except PackageNotFoundError:  # run from a source tree that was never installed
        return "0+unknown"
