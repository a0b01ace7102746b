"""What a network is for: the loss, the divergence from a teacher, the metrics."""
