"""What goes wrong in a conversion."""


class ConversionError(ValueError):
    """A file cannot be converted; the message is one sentence (and a list of keys, where keys are wrong)."""
