"""Check of whose the films are: patient ids that are missing, or that header and labels.csv tell differently."""

from dagster import AssetCheckExecutionContext, AssetCheckResult, AssetCheckSeverity, Config
from pydantic import Field

from penumo_assets.assets.pages import rounded, table
from penumo_assets.checks.partitioned import partition_of, partitioned_check
from penumo_assets.cohort.publish import read_manifest
from penumo_assets.jobs.identity import doubts, identity_notes
from penumo_assets.partitions import cohorts
from penumo_assets.resources.storage.root import Storage


class PatientIdentityConfig(Config):
    """How many films may be of a doubtful patient."""

    max_rate: float = Field(default=0.05, ge=0, le=1, description="Largest share of a cohort's labelled films.")


@partitioned_check(
    cohorts,
    asset="raw_images",
    blocking=True,
    description="Header and labels.csv agree on whose each labelled film is (patient id, sex, age), and each has a "
    "patient id that is no word for missing. Error: more films than `max_rate` allows (default 5 %) stop the run; a "
    "few are a warning.",
)
def patient_identity(
    context: AssetCheckExecutionContext, config: PatientIdentityConfig, storage: Storage
) -> AssetCheckResult:
    rows = read_manifest(storage.store, partition_of(context))
    films = [row for row in rows if row.label and row.status == "accepted"]
    doubtful = [row for row in films if identity_notes(row)]
    rate = len(doubtful) / max(1, len(films))
    offenders = ({"file": row.source, "notes": ", ".join(identity_notes(row))} for row in doubtful)
    return AssetCheckResult(
        passed=not doubtful,
        severity=AssetCheckSeverity.ERROR if rate > config.max_rate else AssetCheckSeverity.WARN,
        metadata={
            "rate": rounded(rate),
            "tolerated": f"{config.max_rate:.0%}",
            "labelled": len(films),
            "by_note": table(doubts(doubtful), ("note", "meaning", "films")),
            "offenders": table(offenders, ("file", "notes")),
        },
    )
