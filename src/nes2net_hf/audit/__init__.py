"""Does a detector listen to speech? Trivial cues and duplicates of a corpus, and a model without them."""
