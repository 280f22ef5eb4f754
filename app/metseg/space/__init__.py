"""Grids, ways between them, and components: geometry without files."""
