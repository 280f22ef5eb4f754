"""Build time only: synthetic cohort, training, freezing, the paper's tables. Never in the image."""
