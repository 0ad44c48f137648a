"""A trained model's folder: loading it, saying what it is, exporting it, and where it comes from."""
