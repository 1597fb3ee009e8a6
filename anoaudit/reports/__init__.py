"""Score table → terminal, JSON, NDJSON, CSV, Parquet, Markdown. Derives everything from the table, computes no score."""
