"""What every other room may use, and what knows nothing of pruning."""
