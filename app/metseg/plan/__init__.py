"""Plans and bundles: the science of a run as data; nothing here needs torch."""
