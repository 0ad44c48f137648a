"""What went wrong at the Hub, in a sentence."""

from __future__ import annotations

# By the names of huggingface_hub's and its HTTP client's exceptions.
_REASONS = {
    "GatedRepoError": "access to it must be granted first: ask for it on its page, then log in with `hf auth login`",
    "RevisionNotFoundError": "it has no such revision",
    "RepositoryNotFoundError": "there is no such repository on the Hub, or it is private: check the id, or log in "
    "with `hf auth login`",
    "RemoteEntryNotFoundError": "the repository has no such file",
    "EntryNotFoundError": "the repository has no such file",
    "OfflineModeIsEnabled": "offline mode is on and it is not in the cache: unset HF_HUB_OFFLINE, or give a local one",
    "LocalEntryNotFoundError": "the Hub cannot be reached and it is not in the cache: check the network, or give a "
    "local one",
    "ConnectError": "the Hub cannot be reached: check the network, or give a local one",
    "ConnectTimeout": "the Hub cannot be reached: check the network, or give a local one",
}


def hub_reason(error: BaseException) -> str | None:
    """What a chain of exceptions comes down to, or None where the Hub has no part in it."""
    seen: BaseException | None = error
    while seen is not None:
        if type(seen).__name__ in _REASONS:
            return _REASONS[type(seen).__name__]
        seen = seen.__cause__ or seen.__context__
    return None


def why(error: BaseException) -> str:
    """What went wrong at the Hub, or else what the exception says, on one line and without its full stop."""
    return hub_reason(error) or " ".join(str(error).split())[:200].rstrip(".")
