"""What can be asked for: one kind of target a file, found by name."""
