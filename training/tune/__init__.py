"""Choosing thresholds and size rules on validation cases."""
