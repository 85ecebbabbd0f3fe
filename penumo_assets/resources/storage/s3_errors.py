"""What S3 and its two client libraries say when something fails, in the words of the storage interface.

Each message names the variable to look at; credentials, addresses and landed names stay out of it, and so do the
libraries' own texts, which quote requests and answers.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from boto3.exceptions import Boto3Error
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError, UnauthenticatedError

from penumo_assets.resources.storage.object_store import ObjectChanged, ObjectMissing, StorageError, redacted

_CODES = (re.compile(r"<Code>(\w+)</Code>"), re.compile(r"status code: (\d{3})"), re.compile("(without LOCATION)"))
_HEADERS = re.compile("contained non UTF-8 characters|containing non-ASCII data")
_ABSENT = {"NoSuchKey", "NotFound", "404"}
_OTHER_REGION = {
    "PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "301",
    "without LOCATION",
}  # fmt: skip
_BAD_CREDENTIALS = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "401"}
_NO_CREDENTIALS = "no AWS credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or use a role"


class RequestInvalid(StorageError):
    """S3 does not do this in one request: it copies at most 5 GiB at once."""


class HeadersUnread(StorageError):
    """Somebody gave the object a header that obstore does not read: one that is not ASCII."""


@contextmanager
def translated(what: str, bucket: str) -> Iterator[None]:
    """Turn the libraries' errors about ``what`` (a key or a folder) into StorageError.

    Raises
    ------
    ObjectMissing
        If there is no such object.
    ObjectChanged
        If the object is not what the request demanded.
    RequestInvalid
        If S3 answers InvalidRequest.
    HeadersUnread
        If the object came, with a header that obstore does not read.
    StorageError
        Otherwise.
    """
    what = redacted(what)
    try:
        yield
    except NoCredentialsError:
        raise StorageError(f"{what}: {_NO_CREDENTIALS}") from None
    except ClientError as error:
        raise named(what, bucket, error.response.get("Error", {}).get("Code", "unknown")) from None
    except (AlreadyExistsError, PreconditionError):
        raise ObjectChanged(f"{what} was written by somebody else meanwhile") from None
    except (FileNotFoundError, BaseError) as error:
        if _HEADERS.search(str(error)):
            raise HeadersUnread(f"{what} has a header that is not ASCII") from None
        code = _code(error)
        if code:
            raise named(what, bucket, code) from None
        if isinstance(error, UnauthenticatedError):  # without an answer from S3: there was nothing to sign with
            raise StorageError(f"{what}: {_NO_CREDENTIALS}") from None
        reason = "S3 cannot be reached or the transfer broke off; check the network and AWS_ENDPOINT_URL"
        raise StorageError(f"{what}: {reason}") from None
    except (BotoCoreError, Boto3Error) as error:
        reason = f"S3 cannot be used ({type(error).__name__}); check the network and AWS_ENDPOINT_URL"
        raise StorageError(f"{what}: {reason}") from None


def named(what: str, bucket: str, code: str) -> StorageError:
    """The error that S3's ``code`` means, with the variable to look at."""
    what = redacted(what)
    if code in _ABSENT:
        return ObjectMissing(f"there is no object {what}")
    if code == "InvalidRequest":
        return RequestInvalid(f"{what}: S3 answered {code}")
    if code == "NoSuchBucket":
        return StorageError(f"{what}: there is no bucket {bucket}; check PENUMO_ROOT")
    if code in _OTHER_REGION:
        return StorageError(f"{what}: bucket {bucket} lies in another region; check AWS_DEFAULT_REGION")
    if code in _BAD_CREDENTIALS:
        variables = "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, or AWS_PROFILE"
        return StorageError(f"{what}: S3 refused the credentials ({code}); check {variables}")
    if code in {"AccessDenied", "403"}:
        return StorageError(
            f"{what}: S3 answered AccessDenied; the credentials may not use bucket {bucket} or its KMS key, "
            "or PENUMO_ROOT names another's bucket (see docs/deploy_aws.md)"
        )
    return StorageError(f"{what}: S3 answered {code}")


def _code(error: Exception) -> str:
    """S3's error code in an answer, else its HTTP status (an answer to HEAD has no body), else nothing."""
    found = [match[1] for match in (code.search(str(error)) for code in _CODES) if match]
    return found[0] if found else ""
