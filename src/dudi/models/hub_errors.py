"""What the hub's client means by its errors: one line for a person, and whose fault it is."""

from __future__ import annotations

from collections.abc import Iterator

from huggingface_hub import constants
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from dudi.errors import ConfigError, DudiError, EnvironmentFault


def explain_hub_error(name: str, what: str, error: BaseException) -> DudiError | None:
    """The error for a person who asked for a model, tokenizer or dataset (`what`); None if it is none of the hub's.

    The hub's own error is among the causes of what was raised.
    """
    causes, hub = list(_causes(error)), f"the hub ({constants.ENDPOINT})"
    not_here = f"{name}: no such folder here, and"

    def among(*kinds: type[BaseException]) -> bool:
        return any(isinstance(cause, kinds) for cause in causes)

    # `datasets` leaves the hub's error out of the chain and says it in words.
    if among(GatedRepoError) or any("is a gated dataset" in str(cause) for cause in causes):
        page = f"accept its terms on its page on {hub}, and run `hf auth login`"
        return EnvironmentFault(f"{name}: the {what} is gated: {page}")
    if among(RepositoryNotFoundError):
        advice = "check the spelling, or run `hf auth login` if it is private"
        return ConfigError(f"{not_here} none on the hub that is open to you; {advice}")
    if among(RevisionNotFoundError):
        return ConfigError(f"{name}: the hub has no such revision of it; check `revision`")
    status = next((code for cause in causes if (code := _status(cause)) is not None), None)
    if among(OfflineModeIsEnabled) or (status is None and constants.HF_HUB_OFFLINE):
        advice = "HF_HUB_OFFLINE is set: unset it or name a folder"
        return EnvironmentFault(f"{not_here} not in the hub's cache; {advice}")
    if status is not None:
        return EnvironmentFault(f"{name}: {hub} answers {status}; try again later")
    if among(LocalEntryNotFoundError, ConnectionError):
        return EnvironmentFault(f"{not_here} {hub} cannot be reached; check the network, or name a folder")
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error and what it came from, the outermost at the start."""
    seen: BaseException | None = error
    for _ in range(16):
        if seen is None:
            return
        yield seen
        seen = seen.__cause__ or seen.__context__


def _status(cause: BaseException) -> int | None:
    """The hub's answer where it is a failure of the hub itself: too busy, or broken."""
    if not isinstance(cause, HfHubHTTPError) or cause.response is None:
        return None
    code = int(cause.response.status_code)
    return code if code == 429 or code >= 500 else None
