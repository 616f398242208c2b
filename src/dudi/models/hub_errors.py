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
    """The error for a person, or None when it did not come from the hub.

    Args:
        name: `org/name`, as it was asked for.
        what: `model`, `tokenizer`, `config` or `dataset`.
        error: What was raised; the hub's own error is among its causes.
    """
    causes = list(_causes(error))
    # `datasets` leaves the hub's error out of the chain and says it in words.
    if any(isinstance(cause, GatedRepoError) or "is a gated dataset" in str(cause) for cause in causes):
        return EnvironmentFault(
            f"{name}: the {what} is gated: accept its terms on its page on the hub ({constants.ENDPOINT}), and run "
            "`hf auth login`"
        )
    if any(isinstance(cause, RepositoryNotFoundError) for cause in causes):
        return ConfigError(
            f"{name}: no such folder here, and none on the hub that is open to you; check the spelling, or run "
            "`hf auth login` if it is private"
        )
    if any(isinstance(cause, RevisionNotFoundError) for cause in causes):
        return ConfigError(f"{name}: the hub has no such revision of it; check `revision`")
    status = next((code for cause in causes if (code := _status(cause)) is not None), None)
    if any(isinstance(cause, OfflineModeIsEnabled) for cause in causes) or (
        status is None and constants.HF_HUB_OFFLINE
    ):
        return EnvironmentFault(
            f"{name}: no such folder here, and not in the hub's cache; HF_HUB_OFFLINE is set: unset it or name a folder"
        )
    if status is not None:
        return EnvironmentFault(f"{name}: the hub ({constants.ENDPOINT}) answers {status}; try again later")
    if any(isinstance(cause, LocalEntryNotFoundError | ConnectionError) for cause in causes):
        return EnvironmentFault(
            f"{name}: no such folder here, and the hub ({constants.ENDPOINT}) cannot be reached; check the network, or "
            "name a folder"
        )
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
