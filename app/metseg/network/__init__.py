"""The networks, as small builders with literal hyper-parameters; training imports them from here."""
