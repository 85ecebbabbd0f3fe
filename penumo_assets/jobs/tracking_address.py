"""Where MLflow is: an address that may be shown, with what is secret of it kept apart."""

import os
from urllib.parse import unquote, urlsplit

URI_VARIABLE = "MLFLOW_TRACKING_URI"
EXPERIMENT_VARIABLE = "MLFLOW_EXPERIMENT_NAME"
DEFAULT_EXPERIMENT = "pneumonia"
USER_VARIABLE = "MLFLOW_TRACKING_USERNAME"
SECRET_VARIABLES = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")


def experiment_from_environment() -> str:
    """``MLFLOW_EXPERIMENT_NAME``, or the one default for jobs and orchestrator."""
    return os.environ.get(EXPERIMENT_VARIABLE) or DEFAULT_EXPERIMENT


def uri_from_environment() -> str:
    """``MLFLOW_TRACKING_URI``; empty if it is not set.

    MLflow prints the address that it is given and quotes it in errors. So the user and the password of a web address
    move into the variables that MLflow reads them from, here and for the processes that this one starts.
    """
    uri = os.environ.get(URI_VARIABLE, "")
    try:
        parts = urlsplit(uri)
    except ValueError:  # not to be taken apart, so not plain either
        return uri
    if parts.scheme in ("http", "https") and "@" in parts.netloc:
        os.environ[USER_VARIABLE] = unquote(parts.username or "")
        os.environ[SECRET_VARIABLES[0]] = unquote(parts.password or "")
        uri = os.environ[URI_VARIABLE] = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    return uri


def is_plain(uri: str) -> bool:
    """Whether an address may be shown: a file, SQLite, or a web address of nothing but host and path.

    Of anything else only its own reader knows where it keeps a password: before an @, in a query, behind a #.
    """
    scheme, colon, rest = uri.partition(":")
    if is_web(uri):
        return not set("@?#") & set(rest)
    is_file = not colon or scheme.lower() in ("sqlite", "file")
    return is_file and (rest.startswith("///") or not rest.startswith("//"))


def is_web(uri: str) -> bool:
    return uri.lower().startswith(("http:", "https:"))


def redacted(error: Exception, uri: str) -> str:
    """An error of MLflow's in words. Its text can quote the address, and then only its kind is told."""
    return f"{type(error).__name__}: {error}" if is_plain(uri) else type(error).__name__
