"""From couplings to channel groups that can be cut, and those that cannot, with the reason."""
