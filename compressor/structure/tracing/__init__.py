"""Which channels belong together, seen by running the network."""
