"""One file per benchmark, each with its declaration (`corpora.corpus.Corpus`)."""
