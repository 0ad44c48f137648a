"""The one exception of evaluation."""


class EvaluationError(ValueError):
    """Scores or keys cannot be evaluated; the message is one sentence naming the file and the mend."""
