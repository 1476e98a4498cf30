"""Whole-slide images: reading them, finding tissue, cutting tiles, and what goes to and comes from QuPath and ASAP."""
