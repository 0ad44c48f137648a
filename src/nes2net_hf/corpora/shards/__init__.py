"""Parquet shards of a corpus: writes them, and reads them in any order."""
