"""Widths that meet a target which only a measurement can tell: time on a device, or the rise of the loss."""
