"""From a prepared case to the members' probabilities: the only room that knows devices."""
