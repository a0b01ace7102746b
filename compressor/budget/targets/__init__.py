"""What is asked for, and the search for widths that meet it."""
