"""Asset checks: what must hold of an asset before anything is built on it. Blocking ones stop the run.

A check of an asset with partitions has a verdict for each partition. Tolerances are in the launchpad, under the
check's own name (``raw_images_reject_rate``).
"""

from typing import Any

from penumo_assets.checks.dataset import class_balance, duplicates, no_leakage, same_preparation
from penumo_assets.checks.identity import patient_identity
from penumo_assets.checks.models import GATE_CHECKS, champion_agrees, drift
from penumo_assets.checks.objects import MANIFEST_CHECKS, npz_contract
from penumo_assets.checks.preparation import preparation_reveals
from penumo_assets.checks.quality import intensity_drift, mask_plausibility, reject_rate

ASSET_CHECKS: list[Any] = [
    reject_rate,
    patient_identity,
    intensity_drift,
    mask_plausibility,
    *MANIFEST_CHECKS,
    npz_contract,
    preparation_reveals,
    no_leakage,
    same_preparation,
    duplicates,
    class_balance,
    *GATE_CHECKS,
    champion_agrees,
    drift,
]
