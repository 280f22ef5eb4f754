"""Training one member."""
