"""Promised figures: what they are, what is measured today, and that no change makes them worse."""
