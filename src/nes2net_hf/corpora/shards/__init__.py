"""Parquet shards of a corpus: written, and read in any order."""
