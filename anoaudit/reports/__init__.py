"""Score table → terminal, JSON, NDJSON, CSV, Parquet, Markdown. Derives all from the table, computes no score."""
