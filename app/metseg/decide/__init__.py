"""From the members' probabilities to one label map."""
