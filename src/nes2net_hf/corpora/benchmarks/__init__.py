"""One file a benchmark: what it declares of itself (`corpora.corpus.Corpus`)."""
