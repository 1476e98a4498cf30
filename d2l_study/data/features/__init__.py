"""Bags of feature vectors, in the files that laboratories have."""
