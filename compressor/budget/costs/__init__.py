"""What a choice of widths costs, without measuring."""
