"""Asking the Hugging Face Hub: which requests are repeated, and what its client's errors mean, in a sentence each."""

import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub import ModelInfo, SpaceInfo, constants
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import httpx  # httpx2 in version 2 of the client, httpx before

from zoo.errors import UserError
from zoo.weights.scrub import scrub, scrub_logs

T = TypeVar("T")

SECONDS = 4.0
"""For the first question, after which the Hub counts as out of reach."""
TRANSIENT = {408, 429, 500, 502, 503, 504}
WAITS = (1.0, 2.0, 4.0)
"""Seconds before the second, third and fourth try; longer where the Hub says so."""
LONGEST_WAIT = 60.0
"""A Retry-After above this is told to the user instead of waited for."""

CLIENT_ERRORS = (httpx.HTTPError, EntryNotFoundError, HFValidationError, LocalTokenNotFoundError, ConnectionError)
"""What the client raises for a request that failed. Its connection errors are no OSError; Xet's are Python's own."""

UNREACHED = (OfflineModeIsEnabled, httpx.ConnectError, httpx.ConnectTimeout)
"""What the client raises where nothing was reached that could answer; a few seconds do not change that."""

scrub_logs()


class HubError(UserError, OSError):
    """The Hub did not do what was asked; the message says why and what to do."""


class UnreachableError(HubError):
    """There is no Hub to ask."""


def ask(action: Callable[[], T], what: str, repeat: bool = True, first: bool = False) -> T:
    """Run `action`, a request to the Hub that does `what` (an infinitive), and return its result.

    With `repeat` (only for what does no harm twice) a passing failure is tried again after WAITS seconds, a Hub that
    cannot be reached is not: nor, at the `first` request, one that does not answer in time, as it is behind a network
    that swallows what it is sent. Raises HubError in place of what the client raises.
    """
    waits = iter(WAITS if repeat else ())
    unreached = (*UNREACHED, httpx.TimeoutException) if first else UNREACHED
    while True:
        try:
            return action()
        except CLIENT_ERRORS as error:
            wait = next(waits, None)
            asked = retry_after(error)
            if isinstance(cause_of(error), unreached):
                raise UnreachableError(explain(error, what)) from None
            if wait is None or not is_transient(error) or asked > LONGEST_WAIT:
                raise HubError(explain(error, what)) from None
            time.sleep(max(wait, asked))


def checksums(path: Path) -> tuple[str, str]:
    """sha256 and git's sha1 of a file: the Hub states the first of a large file (LFS, Xet) and the second of others."""
    data = path.read_bytes()
    git = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False)
    return hashlib.sha256(data).hexdigest(), git.hexdigest()


def checksums_on_hub(info: ModelInfo | SpaceInfo) -> dict[str, str]:
    """Path -> checksum of each file of a repository, asked for with `files_metadata`; one of what `checksums` gives."""
    return {file.rfilename: (file.lfs.sha256 if file.lfs else file.blob_id) or "" for file in info.siblings or ()}


def is_transient(error: BaseException) -> bool:
    """Whether the same request may succeed a little later, and the client has not waited for that already."""
    return status_of(error) in TRANSIENT or isinstance(error, httpx.TransportError)


def status_of(error: BaseException) -> int:
    """The HTTP status of an error, 0 if it has none."""
    response: Any = getattr(error, "response", None)
    return response.status_code if response is not None else 0


def url_of(error: BaseException) -> str:
    """The address of a request that was answered with an error or was cut, empty if it is not known."""
    answered: Any = getattr(error, "response", None) or error
    try:
        return str(answered.request.url)
    except (AttributeError, RuntimeError):  # the latter where nobody has told the error of its request
        return ""


def retry_after(error: BaseException) -> float:
    """The seconds that the Hub asks to wait, 0 if it does not say."""
    response: Any = getattr(error, "response", None)
    text = response.headers.get("Retry-After", "") if response is not None else ""
    return float(text) if text.isdigit() else 0.0


def cause_of(error: BaseException) -> BaseException:
    """Why the Hub was of no help, of an error that says only that the cache was not either."""
    if isinstance(error, LocalEntryNotFoundError) and isinstance(error.__cause__, CLIENT_ERRORS):
        return error.__cause__
    return error


def explain(error: BaseException, what: str) -> str:
    """One sentence about an error of the client while it tried to do `what`, and the next step."""
    error = cause_of(error)
    told = scrub(getattr(error, "server_message", None) or "")
    for kind, sentence in SENTENCES:
        if isinstance(error, kind):
            return f"cannot {what}: {sentence}"
    status = status_of(error)
    if status in STATUSES:
        seconds = f" {retry_after(error):.0f} seconds" if retry_after(error) else ""
        return f"cannot {what}: {STATUSES[status].format(seconds=seconds)}{f' (it says: {told})' if told else ''}"
    if status >= 500:
        return f"cannot {what}: the Hub answers {status}; nothing is lost, run the same again in a while"
    if status:
        return f"cannot {what}: the Hub answers {status}{f': {told}' if told else ''}"
    endpoint = scrub(constants.ENDPOINT)
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | LocalEntryNotFoundError):
        return f"cannot {what}: {endpoint} cannot be reached; check the network and HF_ENDPOINT"
    if isinstance(error, httpx.TimeoutException):
        return f"cannot {what}: {endpoint} is too slow to answer; run the same again in a while"
    if isinstance(error, httpx.TransportError | ConnectionError):
        return f"cannot {what}: the connection to the Hub broke ({scrub(str(error))}); run the same again"
    return f"cannot {what}: {scrub(str(error))}"


SENTENCES: list[tuple[type[BaseException] | tuple[type[BaseException], ...], str]] = [
    (OfflineModeIsEnabled, "HF_HUB_OFFLINE is set, so the Hub is not asked; unset it"),
    (LocalTokenNotFoundError, "nobody is logged in; run `hf auth login`, or set HF_TOKEN to a token"),
    (GatedRepoError, "the repository is gated; ask for access on its page, then log in with `hf auth login`"),
    (RepositoryNotFoundError, "there is no such repository, or it is private; check the name, or `hf auth login`"),
    (RevisionNotFoundError, "the repository has no such revision; check the branch, tag or commit"),
]
"""First match wins: a gated repository's error is a kind of a missing one's."""

STATUSES = {
    401: "the Hub does not know the token; log in again with `hf auth login`, or correct HF_TOKEN",
    403: "the token may not do that; use one with write access to this namespace (`hf auth login`)",
    412: "somebody else has published there since; look at what they did, then run the same again",
    429: "the Hub limits requests; wait{seconds}, then run the same again",
}
