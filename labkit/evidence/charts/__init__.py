"""Figures: tables become matplotlib Axes, each with an alt text built from its data and the table beside it."""
