"""What an error of a store means, whichever client raised it, and what a person is told.

Each client has errors of its own. They are told apart by what all have in common (a status of HTTP, a code of the
store's, the names of their classes), so that no client is imported that is not used.
"""

from __future__ import annotations

import asyncio
import errno
import re
import ssl
from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any

from prefect_jobs.errors import JobError, NoSuchObject, StoreError


class Meaning(Enum):
    """What an error says about trying again, and what helps."""

    PASSES = ""
    DENIED = "check the block's credentials, and what they may do there"
    NO_BUCKET = "make the bucket, or mend the block's url"
    NOT_FOUND = "check the name"
    CHANGED = "it is another object than it was; run it again"
    FULL = "free some space"
    OTHER = "check the block's url and options"


_BUSY = {408, 425, 429, 500, 502, 503, 504, 509}
_BUSY_CODES = {
    "SlowDown", "RequestTimeout", "Throttling", "ThrottlingException", "RequestLimitExceeded", "InternalError",
    "ServiceUnavailable", "ServerBusy", "OperationAborted", "OperationTimedOut", "TooManyRequests",
    # What was sent did not arrive as it was; an upload in parts that a restarted server has forgotten.
    "BadDigest", "IncompleteBody", "XAmzContentSHA256Mismatch", "NoSuchUpload",
}  # fmt: skip
_DENIED_CODES = {"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken"}
_NO_BUCKET_CODES = {"NoSuchBucket", "ContainerNotFound", "BucketNotFound"}
# By the names of their classes: botocore, aiohttp, azure-core, google-auth, requests.
_UNREACHABLE = {
    "HTTPClientError", "ClientConnectionError", "ClientPayloadError", "ServiceRequestError", "ServiceResponseError",
    "IncompleteReadError", "IncompleteRead", "ResponseStreamingError", "FSTimeoutError", "TransportError",
    "RequestException", "ServerDisconnectedError", "ResponseParserError", "ChecksumError",
}  # fmt: skip
_NO_LOGIN = {
    "NoCredentialsError", "PartialCredentialsError", "DefaultCredentialsError", "ClientAuthenticationError",
    "RefreshError", "CredentialRetrievalError", "InvalidConfig", "ConfigFileNotFound", "ProfileNotFound",
}  # fmt: skip
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_AWAY = {errno.EBUSY, errno.EREMOTEIO, errno.EHOSTUNREACH, errno.ENETUNREACH}


def meaning_of(error: BaseException) -> Meaning:
    """What an error of a client means."""
    chain = list(_chain(error))
    if any(isinstance(link, OSError) and link.errno in _FULL for link in chain):
        return Meaning.FULL
    kinds = {kind.__name__ for link in chain for kind in type(link).__mro__}
    if "SSLCertVerificationError" in kinds or any(isinstance(link, ssl.CertificateError) for link in chain):
        return Meaning.OTHER
    if kinds & _NO_LOGIN:
        return Meaning.DENIED
    codes = {code for link in chain for code in _codes(link)}
    if codes & _NO_BUCKET_CODES or "bucket does not exist" in str(error).lower():
        return Meaning.NO_BUCKET
    if codes & _BUSY_CODES:
        return Meaning.PASSES
    statuses = {status for link in chain for status in _statuses(link)}
    if 416 in statuses:
        return Meaning.CHANGED
    if statuses & {401, 403} or codes & _DENIED_CODES or isinstance(error, PermissionError):
        return Meaning.DENIED
    if statuses & _BUSY:
        return Meaning.PASSES
    if 404 in statuses or isinstance(error, FileNotFoundError):
        return Meaning.NOT_FOUND
    if kinds & _UNREACHABLE or any(isinstance(link, ConnectionError | TimeoutError | EOFError) for link in chain):
        return Meaning.PASSES
    if isinstance(error, OSError) and error.errno in _AWAY:
        return Meaning.PASSES
    return Meaning.OTHER


def told(where: str, what: str, error: BaseException, meaning: Meaning, secrets: list[str]) -> JobError:
    """The error for a person: what was tried, what happened, what to do next, and no credential."""
    if isinstance(error, JobError):
        return error
    kind = NoSuchObject if meaning is Meaning.NOT_FOUND else StoreError
    words = words_of(error, secrets).rstrip(".")
    return kind(f"{where} could not {what}: {words}; {meaning.value}")


def words_of(error: BaseException, secrets: list[str]) -> str:
    """What an error says, in one line, without the credentials and without what a signed URL has after its path."""
    said = " ".join(str(error).split()) or repr(error)
    code = next((code for link in _chain(error) for code in _codes(link)), "")
    words = f"{code or type(error).__name__}: {said}" if (code or type(error).__name__) not in said else said
    status = next((status for link in _chain(error) for status in _statuses(link)), None)
    if status and not code:
        words += f" (HTTP {status})"
    for secret in secrets:
        words = words.replace(secret, "***")
    return re.sub(r"(\w+://[^\s?'\"]*)\?[^\s'\"]*", r"\1?***", words)[:1000]


def secrets_in(credentials: Any) -> list[str]:
    """Every text in credentials that an error might repeat, the longest first."""
    found: set[str] = set()

    def look(value: Any) -> None:
        if isinstance(value, Mapping):
            for part in value.values():
                look(part)
        elif isinstance(value, list | tuple):
            for part in value:
                look(part)
        elif isinstance(value, str) and len(value) > 3:
            found.update((value, repr(value)[1:-1]))

    look(credentials)
    return sorted(found, key=len, reverse=True)


def _chain(error: BaseException) -> Iterator[BaseException]:
    link: BaseException | None = error
    for _ in range(8):
        if link is None:
            return
        yield link
        link = link.__cause__ or link.__context__


def _codes(error: BaseException) -> Iterator[str]:
    response = getattr(error, "response", None)
    found = response.get("Error", {}).get("Code") if isinstance(response, dict) else None
    for code in (found, getattr(error, "error_code", None), getattr(error, "code", None)):
        if isinstance(code, str) and code and not code.isdigit():
            yield str(getattr(code, "value", code))


def _statuses(error: BaseException) -> Iterator[int]:
    if isinstance(error, asyncio.CancelledError):
        return
    response = getattr(error, "response", None)
    found = response.get("ResponseMetadata", {}).get("HTTPStatusCode") if isinstance(response, dict) else None
    for status in (found, *(getattr(error, name, None) for name in ("status_code", "status", "code"))):
        if isinstance(status, int | str) and str(status).isdigit():
            yield int(status)
