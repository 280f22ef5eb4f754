"""From runs to a bundle."""
