"""Streams items through a model to a score table: p-values, decisions, why. Never imports torch."""
