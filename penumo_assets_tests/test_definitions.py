"""What the UI loads: complete, documented, and light."""

import subprocess
import sys
from pathlib import Path

import pytest
from dagster import AssetKey, AssetSpec

from penumo_assets.configs.train import Gates
from penumo_assets.definitions import build_definitions
from penumo_assets.partitions import architectures

CHECKOUT = Path(__file__).parent.parent
COHORT_ASSETS = {"landing", "raw_images", "lung_masks", "preprocessed_images", "npz_tensors"}
COHORT_ASSETS |= {"predictions", "external_validation"}
ARCHITECTURE_ASSETS = {"hyperparameter_search", "trained_model", "evaluation_report"}
PLAIN_ASSETS = {"training_set", "champion_model", "endpoint", "lung_segmenter"}


@pytest.fixture(scope="module")
def specs() -> dict[str, AssetSpec]:
    definitions = build_definitions()
    return {spec.key.to_user_string(): spec for spec in definitions.resolve_all_asset_specs()}


def test_the_graph_holds_the_assets_of_the_data_flow(specs: dict[str, AssetSpec]) -> None:
    assert set(specs) == COHORT_ASSETS | PLAIN_ASSETS | ARCHITECTURE_ASSETS


def test_assets_are_partitioned_by_cohort_or_architecture(specs: dict[str, AssetSpec]) -> None:
    partitioned = {name: getattr(spec.partitions_def, "name", None) for name, spec in specs.items()}
    assert {name for name, by in partitioned.items() if by == "cohort"} == COHORT_ASSETS
    assert {name for name, spec in specs.items() if spec.partitions_def == architectures} == ARCHITECTURE_ASSETS


def test_lineage_runs_from_landing_to_predictions(specs: dict[str, AssetSpec]) -> None:
    upstream = {name: {dep.asset_key.to_user_string() for dep in spec.deps} for name, spec in specs.items()}
    assert upstream["raw_images"] == {"landing"}
    assert upstream["lung_masks"] == {"raw_images", "lung_segmenter"}
    assert upstream["npz_tensors"] == {"preprocessed_images", "lung_masks"}
    assert upstream["training_set"] == {"npz_tensors"}
    assert upstream["evaluation_report"] == {"trained_model", "training_set"}
    assert upstream["endpoint"] == {"champion_model"}
    assert upstream["predictions"] == upstream["external_validation"] == {"npz_tensors", "champion_model"}


def test_every_asset_tells_what_it_is_and_whose(specs: dict[str, AssetSpec]) -> None:
    for name, spec in specs.items():
        assert spec.description, name
        assert len(spec.description) > 40, name
        assert spec.owners, name
        assert spec.kinds, name
        assert spec.group_name in {"ingest", "segmentation", "imaging", "learning", "serving"}, name
        assert spec.code_version or name in {"landing", "lung_segmenter"}, name


def test_checks_and_sensors_are_there() -> None:
    definitions = build_definitions()
    checks = {key.name for check in definitions.asset_checks or () for key in check.check_keys}
    assert checks >= {"reject_rate", "mask_plausibility", "npz_contract", "no_leakage", "class_balance"}
    assert checks >= {"champion_agrees", "drift"} | {f"gate_{name}" for name in Gates.model_fields}
    assert definitions.get_repository_def().has_sensor_def("landing_listing")


def test_parts_can_be_replaced_by_name() -> None:
    marker = object()
    definitions = build_definitions({"jobs": marker})
    assert definitions.resources is not None
    assert definitions.resources["jobs"] is marker
    assert definitions.resources["storage"] is not marker


def test_one_multi_asset_makes_all_four_stages() -> None:
    stages = {AssetKey(name) for name in ("raw_images", "lung_masks", "preprocessed_images", "npz_tensors")}
    prepare = build_definitions().resolve_assets_def(AssetKey("raw_images"))
    assert prepare.op.name == "prepare_cohort"
    assert prepare.keys == stages
    assert prepare.can_subset


def test_loading_imports_no_heavy_library() -> None:
    heavy = ("torch", "torchvision", "mlflow", "sagemaker", "cv2", "sklearn", "pandas", "boto3", "matplotlib")
    code = f"import sys, penumo_assets.definitions; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_loading_warns_of_nothing() -> None:
    code = "import penumo_assets.definitions as d; d.defs.resolve_all_asset_specs()"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_dagster_validates_the_workspace(tmp_path: Path) -> None:
    dagster = Path(sys.executable).with_name("dagster")
    command = [str(dagster), "definitions", "validate", "-w", "workspace.yaml"]
    environment = {"PATH": str(dagster.parent), "HOME": str(tmp_path), "DAGSTER_HOME": str(tmp_path)}
    done = subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Validation successful for code location penumo_assets" in done.stderr + done.stdout
