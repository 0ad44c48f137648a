"""What goes wrong with a corpus."""


class CorpusError(ValueError):
    """A corpus cannot be read as asked; the message is one sentence that names the file or field and the mend."""
