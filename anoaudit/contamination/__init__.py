"""Mixing data sets: data in, data with a known share of anomalies out."""
