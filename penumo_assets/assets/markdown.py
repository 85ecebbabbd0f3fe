"""Text from elsewhere in Markdown metadata, so that it stays text."""

import re

from dagster import MarkdownMetadataValue, MetadataValue

from penumo_assets.resources.tracking import Tracking

_BACKTICKS = re.compile(r"`+")


def text_block(text: str) -> MarkdownMetadataValue:
    """``text`` as a block of code; its fence is longer than any row of backticks in it, so nothing ends it early."""
    longest = max((len(run) for run in _BACKTICKS.findall(text)), default=0)
    fence = "`" * max(3, longest + 1)
    return MetadataValue.md(f"{fence}\n{text}\n{fence}")


def link(text: str, address: str) -> MarkdownMetadataValue:
    """A link, or just the text where ``address`` is no http or https address that can stand in a link."""
    safe = address.startswith(("http://", "https://")) and not re.search(r"[\s()<>\\]", address)
    return MetadataValue.md(f"[{_escaped(text)}](<{address}>)" if safe else _escaped(text))


def mlflow_run(tracking: Tracking, run_id: str | None) -> MarkdownMetadataValue:
    """A job's MLflow run, with a link where MLflow's UI is known."""
    return link(run_id or "none", (tracking.run_address(run_id) if run_id else None) or "")


def _escaped(text: str) -> str:
    """Everything that is neither a letter, a digit nor a space with a backslash in front; on one line."""
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", " ".join(text.split()))
