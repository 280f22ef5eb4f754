"""Members between two others."""
