"""Check of whose the films are: patient ids that are missing, or that header and labels.csv tell differently."""

from dagster import AssetCheckExecutionContext, AssetCheckResult, AssetCheckSeverity, Config, asset_check
from pydantic import Field

from penumo_assets.assets.pages import rounded, table
from penumo_assets.checks.scope import manifests_in_question, scope
from penumo_assets.jobs.identity import doubts, identity_notes
from penumo_assets.jobs.manifest import ManifestRow
from penumo_assets.resources.storage.root import Storage


class PatientIdentityConfig(Config):
    """How many films may be of a doubtful patient."""

    max_rate: float = Field(default=0.05, ge=0, le=1, description="Largest share of a cohort's labelled films.")


@asset_check(
    asset="raw_images",
    blocking=True,
    description="Header and labels.csv agree on whose each labelled film is (patient id, sex, age), and each has a "
    "patient id that is no word for missing. Error: more films than `max_rate` allows (default 5 %) stop the run; a "
    "few are a warning.",
)
def patient_identity(
    context: AssetCheckExecutionContext, config: PatientIdentityConfig, storage: Storage
) -> AssetCheckResult:
    labelled, doubtful = 0, list[ManifestRow]()
    for rows in manifests_in_question(context, storage.store):
        films = [row for row in rows if row.label and row.status == "accepted"]
        labelled += len(films)
        doubtful += [row for row in films if identity_notes(row)]
    rate = len(doubtful) / max(1, labelled)
    offenders = ({"file": row.source, "notes": ", ".join(identity_notes(row))} for row in doubtful)
    return AssetCheckResult(
        passed=not doubtful,
        severity=AssetCheckSeverity.ERROR if rate > config.max_rate else AssetCheckSeverity.WARN,
        metadata={
            "judged": scope(context),
            "rate": rounded(rate),
            "tolerated": f"{config.max_rate:.0%}",
            "labelled": labelled,
            "by_note": table(doubts(doubtful), ("note", "meaning", "films")),
            "offenders": table(offenders, ("file", "notes")),
        },
    )
