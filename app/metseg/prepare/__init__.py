"""From a case to what the networks read."""
