"""What is shipped to a job: the right sources, a complete list of packages, and programs that start with just those."""

import ast
import importlib.metadata
import io
import json
import os
import subprocess
import sys
import tarfile
import tomllib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import penumo_assets
from penumo_assets.cohort.landing import LandedFile, Landing
from penumo_assets.cohort.plan import PlanSettings, plan_cohort
from penumo_assets.configs.prepare import PrepareConfig
from penumo_assets.configs.train import Architecture
from penumo_assets.imaging.pack import load_npz
from penumo_assets.jobs.manifest import STAGES, load_rows
from penumo_assets.jobs.prepare.work import dump_work
from penumo_assets.phantoms.cohort import write_cohort
from penumo_assets.resources.compute import spec as spec_module
from penumo_assets.resources.compute.bundle import START_NAME, publish_bundle, source_bundle
from penumo_assets.resources.compute.packages import constraints
from penumo_assets.resources.compute.sagemaker.start import BUNDLE_NAME, requirements_of
from penumo_assets.resources.compute.spec import BUNDLE_PACKAGES, JobSpec, bundle_digest
from penumo_assets.resources.storage.file_store import FileStore
from penumo_assets_tests.jobs.training_samples import packed_set, read_result
from penumo_assets_tests.resources import bare_environment
from penumo_assets_tests.resources.bare_environment import IMAGE_PACKAGES

PACKAGE = Path(penumo_assets.__file__).parent
PREPARE_FILE, TRAIN_FILE = PACKAGE / "jobs" / "prepare" / "requirements.txt", PACKAGE / "models" / "requirements.txt"
FILES = {"prepare": PREPARE_FILE, "train": TRAIN_FILE}
REQUIREMENTS = {name: bare_environment.requirements(path) for name, path in FILES.items()}
PROJECT = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CONSTRAINTS = PACKAGE.parent / "constraints.txt"
TORCH = {"torch", "torchvision"}
# One is asked for by name in the configuration, and named in the error where absent; torch does what the other does.
OPTIONAL_MODULES = {"torchxrayvision", "onnxruntime"}
PROGRAMS = sorted(path.parent.name for path in (PACKAGE / "jobs").glob("*/__main__.py"))


def members() -> list[tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(source_bundle())) as tar:
        return tar.getmembers()


def test_the_bundle_is_exactly_the_packages_that_jobs_use() -> None:
    names = [Path(member.name).relative_to("penumo_assets") for member in members()]
    assert {name.parts[0] for name in names} == {*BUNDLE_PACKAGES, "__init__.py", "constraints.txt"}
    sources = {
        path.relative_to(PACKAGE)
        for package in BUNDLE_PACKAGES
        for path in (PACKAGE / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert set(names) == sources | {Path("__init__.py"), Path("constraints.txt")}
    assert {path.relative_to(PACKAGE) for path in FILES.values()} <= set(names)
    statements = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8")).body
    assert [type(item) for item in statements] == [ast.Expr], "it is shipped: a docstring, and no import"


@pytest.mark.trust
def test_what_lies_about_between_the_sources_is_not_bundled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, outside, pinned = tmp_path / "penumo_assets", tmp_path / "outside", constraints().decode()
    kept = ["__init__.py", "configs/a.yaml", "jobs/deep/b.py", "metrics/report/c.css", "models/weights/d.safetensors"]
    stray = ["x.py", "configs/.env", "configs/x.json", "imaging/x.dcm", "jobs/.x.py", "jobs/.y/x.py", "jobs/x.txt"]
    stray += ["jobs/__pycache__/x.pyc", "models/weights/x.pt", "models/weights/.x.json", "resources/x.py"]
    for name in (*kept, *stray):
        (_made((root / name).parent) / Path(name).name).write_text(name)
    for name in ("x.py", "x.yaml"):
        (_made(outside) / name).write_text("a secret")
    (root / "jobs" / "linked.py").symlink_to(outside / "x.py")
    (root / "configs" / "linked.yaml").symlink_to(outside / "x.yaml")
    (root / "imaging" / "linked").symlink_to(outside)
    (root / "models" / "within.py").symlink_to(root / "x.py")
    (root / "metrics" / "d").symlink_to(root / "resources")
    os.mkfifo(root / "jobs" / "pipe.py")
    monkeypatch.setattr(penumo_assets, "__file__", str(root / "__init__.py"))
    with tarfile.open(fileobj=io.BytesIO(source_bundle.__wrapped__())) as tar:
        found = {member.name: tar.extractfile(member).read().decode() for member in tar}
    assert found == {f"penumo_assets/{name}": name for name in kept} | {"penumo_assets/constraints.txt": pinned}


@pytest.mark.trust
def test_a_package_that_is_reached_through_a_link_is_bundled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "penumo_assets").symlink_to(PACKAGE)
    monkeypatch.setattr(penumo_assets, "__file__", str(tmp_path / "penumo_assets" / "__init__.py"))
    assert source_bundle.__wrapped__() == source_bundle()


def test_a_package_whose_files_are_links_makes_no_empty_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = _made(tmp_path / "penumo_assets")
    (root / "__init__.py").symlink_to(PACKAGE / "__init__.py")
    monkeypatch.setattr(penumo_assets, "__file__", str(root / "__init__.py"))
    with pytest.raises(RuntimeError, match="installed as links"):
        source_bundle.__wrapped__()


def test_the_same_sources_make_the_same_bytes() -> None:
    first = source_bundle()
    source_bundle.cache_clear()
    assert source_bundle() == first
    assert {(member.mtime, member.uid, member.uname) for member in members()} == {(0, 0, "")}


def test_the_bundle_is_uploaded_once_under_its_content(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    published = publish_bundle(store)
    assert bundle_digest().startswith(published.prefix.rsplit("/", 1)[-1].split("-")[0])
    assert store.read(f"{published.prefix}/{BUNDLE_NAME}") == source_bundle()
    before = list(store.list_objects(published.prefix))
    assert publish_bundle(store) == published
    assert list(store.list_objects(published.prefix)) == before


@pytest.mark.trust
@pytest.mark.parametrize("name", [BUNDLE_NAME, START_NAME])
@pytest.mark.parametrize("data", [b"print('not ours')", b"x" * (64 << 20)], ids=["other bytes", "far more bytes"])
def test_code_that_somebody_has_changed_is_published_again(tmp_path: Path, name: str, data: bytes) -> None:
    store = FileStore(tmp_path)
    published = publish_bundle(store)
    ours = store.read(f"{published.prefix}/{name}")
    store.write(f"{published.prefix}/{name}", data)
    assert publish_bundle(store) == published
    assert store.read(f"{published.prefix}/{name}") == ours


def named_for(program: str) -> list[Requirement]:
    """What is installed for a program, beside the image."""
    return [item for path in requirements_of(program, PACKAGE) for item in bare_environment.requirements(path)]


def imported_by(program: str) -> set[str]:
    """Every module from elsewhere that a program, or what it imports of ours, can import."""
    todo, seen, found = [f"penumo_assets.jobs.{program}.__main__"], set(), set()
    todo += [f"penumo_assets.models.{name}" for name in Architecture]  # these are imported by name
    todo += ["penumo_assets.jobs.infer.handler"] if program == "infer" else []
    while todo:
        module = todo.pop()
        path = PACKAGE.parent / Path(*module.split("."))
        path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        if path in seen or not path.exists():
            continue
        seen.add(path)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            todo += [name for name in names if name.startswith("penumo_assets")]
            found |= {name.split(".")[0] for name in names}
    return found - sys.stdlib_module_names - OPTIONAL_MODULES - {"penumo_assets"}


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_import_of_a_program_is_named_in_its_requirements(program: str) -> None:
    named = {canonicalize_name(name) for name in (*IMAGE_PACKAGES, *(item.name for item in named_for(program)))}
    owners = importlib.metadata.packages_distributions()
    imported = imported_by(program)
    assert "numpy" in imported
    assert not {name for name in imported if not named & set(map(canonicalize_name, owners.get(name, [])))}


def test_the_constraints_are_this_installation_s_versions_of_all_that_the_requirements_bring() -> None:
    lines = constraints().decode().splitlines()
    every = [item for file in FILES.values() for item in bare_environment.requirements(file)]
    pinned = dict(line.split("==") for line in lines)
    assert set(pinned) == set(bare_environment.closure(every))
    assert pinned["pydicom"] == importlib.metadata.version("pydicom")
    assert list(pinned) == sorted(pinned)


def test_an_image_and_the_versions_of_packages_are_part_of_a_job_s_name(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = JobSpec("processing", "prepare", "prepare", "ward")
    names = {spec.job_name("p", 1), replace(spec, image="other:2").job_name("p", 1)}
    monkeypatch.setattr(spec_module, "constraints", lambda: b"numpy==9.9.9\n")
    bundle_digest.cache_clear()
    try:
        names.add(spec.job_name("p", 1))
    finally:
        monkeypatch.undo()
        bundle_digest.cache_clear()
    assert len(names) == 3


def test_preparing_and_predicting_install_no_mlflow_and_training_no_decoder() -> None:
    for program in ("prepare", "pack", "infer"):
        assert not {"mlflow", "scikit-learn", "matplotlib"} & {item.name for item in named_for(program)}
    for program in ("train", "evaluate"):
        assert not {"pydicom", "imagecodecs", "simplejpeg"} & {item.name for item in named_for(program)}


@pytest.mark.parametrize("name", FILES)
def test_the_requirements_allow_what_the_lock_holds_and_pull_no_other_torch(name: str) -> None:
    locked = {canonicalize_name(item.name): item.specifier for item in bare_environment.requirements(CONSTRAINTS)}
    for requirement in REQUIREMENTS[name]:
        pinned = next(iter(locked[canonicalize_name(requirement.name)])).version
        assert requirement.specifier.contains(pinned), f"{requirement} does not allow {pinned}"
    assert not {"torch", "torchvision", "torchaudio"} & bare_environment.closure(REQUIREMENTS[name]).keys()


@pytest.mark.parametrize("name", FILES)
def test_the_requirements_are_those_of_the_extra(name: str) -> None:
    """What a container installs is what an installation with this extra has, beside the image's packages."""
    own = [item for item in map(Requirement, PROJECT["optional-dependencies"][name]) if item.name not in TORCH]
    assert own == REQUIREMENTS[name]
    declared = {canonicalize_name(Requirement(text).name) for text in PROJECT["dependencies"]}
    shared = set.intersection(*({canonicalize_name(item.name) for item in items} for items in REQUIREMENTS.values()))
    assert declared == shared | {"numpy"}


@pytest.fixture(scope="module")
def containers(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The interpreter of an environment that holds what a program's container holds, by program."""

    @cache
    def build(files: tuple[Path, ...]) -> Path:
        named = [item for path in files for item in bare_environment.requirements(path)]
        folder = tmp_path_factory.mktemp("container") / "venv"
        roots = [*named, *map(Requirement, IMAGE_PACKAGES)]
        python = bare_environment.build(folder, bare_environment.closure(roots).values())
        absent = {"dagster", "dagster_shared", "sagemaker", "obstore", "moto", "pytest", "penumo_assets"}
        absent |= set() if TRAIN_FILE in files else {"mlflow", "sklearn"}
        absent |= set() if PREPARE_FILE in files else {"pydicom", "imagecodecs"}
        assert bare_environment.importable(python, [*absent, "torch", "cv2"]) == {"torch", "cv2"}
        return python

    return lambda program: build(tuple(requirements_of(program, PACKAGE)))


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle, unpacked where no other copy of the package is."""
    folder = tmp_path_factory.mktemp("bundle")
    with tarfile.open(fileobj=io.BytesIO(source_bundle())) as tar:
        tar.extractall(folder, filter="data")
    return folder


def environment(**values: str) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH") if name in os.environ}
    return kept | {"OMP_WAIT_POLICY": "PASSIVE", "MLFLOW_DISABLE_TELEMETRY": "true", **values}


EXTRAS = {  # and what an installation with them can do, and does without
    "prepare": (["prepare", "pack"], {"dagster", "mlflow", "sklearn", "matplotlib", "click", *TORCH}),
    "prepare,infer": (["infer"], {"dagster", "mlflow", "sklearn", "matplotlib", "click"}),
    "train": (["train", "evaluate"], {"dagster", "pydicom", "imagecodecs", "optuna"}),
}


@pytest.mark.slow
@pytest.mark.parametrize("extra", EXTRAS)
def test_an_extra_alone_is_a_smaller_installation_that_runs_its_programs(
    extra: str, unpacked: Path, tmp_path: Path
) -> None:
    programs, absent = EXTRAS[extra]
    chosen = [text for name in extra.split(",") for text in PROJECT["optional-dependencies"][name]]
    roots = [Requirement(text) for text in (*PROJECT["dependencies"], *chosen)]
    python = bare_environment.build(tmp_path / "venv", bare_environment.closure(roots).values())
    assert not bare_environment.importable(python, absent)
    for program in programs:
        answer = help_of(python, program, unpacked)
        assert answer.returncode == 0, f"{program}: {answer.stderr}"


def help_of(python: Path, program: str, unpacked: Path) -> subprocess.CompletedProcess[str]:
    command = [python, "-m", f"penumo_assets.jobs.{program}", "--help"]
    return subprocess.run(
        command, cwd=unpacked, env=environment(PYTHONPATH=str(unpacked)), capture_output=True, text=True
    )


@pytest.mark.slow
def test_every_program_starts_with_the_bundle_alone(containers: Callable[[str], Path], unpacked: Path) -> None:
    assert {"prepare", "pack", "train", "evaluate", "infer", "segment_train"} <= set(PROGRAMS)

    for program in PROGRAMS:
        containers(program)
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda program: help_of(containers(program), program, unpacked), PROGRAMS))
    for program, answer in zip(PROGRAMS, answers, strict=True):
        assert answer.returncode == 0, f"{program}: {answer.stderr}"
        assert "usage:" in answer.stdout


@pytest.mark.slow
def test_a_real_job_runs_in_a_container_that_holds_the_bundle_alone(
    containers: Callable[[str], Path], tmp_path: Path
) -> None:
    write_cohort(tmp_path / "films", "ward", patients=2, seed=3, dicom=False, broken=False)
    opt_ml = tmp_path / "ml"
    landed = opt_ml / "processing" / "input" / "landing"
    (tmp_path / "films" / "images").rename(landed_images := _made(landed) / "images")
    names = sorted(f"images/{path.name}" for path in landed_images.iterdir())
    landing = Landing("ward", tuple(LandedFile(name, name, 1) for name in names), {}, {})
    plan = plan_cohort(landing, [], PlanSettings(PrepareConfig(), "bundled", "", STAGES))
    work = _made(opt_ml / "processing" / "input" / "work")
    (work / "config.json").write_text(PrepareConfig().model_dump_json())
    (work / "work.jsonl").write_bytes(dump_work(plan.items))
    config = {"current_host": "algo-1", "hosts": ["algo-1"]}
    (_made(opt_ml / "config") / "resourceconfig.json").write_text(json.dumps(config))
    store = FileStore(tmp_path / "store")
    published = publish_bundle(store)
    code = opt_ml / "processing" / "input" / "code"
    store.download_objects(published.prefix, published.names, code)

    command = [containers("prepare"), code / START_NAME, "processing", "prepare"]
    answer = subprocess.run(
        command, cwd=tmp_path, env=environment(PENUMO_OPT_ML=str(opt_ml)), capture_output=True, text=True
    )

    assert answer.returncode == 0, answer.stdout + answer.stderr
    rows_folder = opt_ml / "processing" / "output" / "rows"
    result = json.loads((rows_folder / "result.json").read_text())
    assert result["program"] == "prepare"
    rows = [row for path in rows_folder.glob("rows-*") for row in load_rows(path.read_bytes())]
    assert [(row.source, row.status) for row in sorted(rows, key=lambda row: row.source)] == [
        (name, "accepted") for name in names
    ]
    for row in rows:
        tensor = opt_ml / "processing" / "output" / row.stages["npz"].key
        assert load_npz(tensor.read_bytes()).shape == (224, 224, 4)


@pytest.mark.slow
def test_a_real_training_runs_and_is_tracked_with_the_packages_of_training_alone(
    containers: Callable[[str], Path], unpacked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = packed_set(tmp_path / "set", monkeypatch, images=24)
    channels = {f"SM_CHANNEL_{name.upper()}": str(dataset / name) for name in ("train", "validation")}
    options = ["--epochs", "1", "--warmup_epochs", "0", "--resolution", "32", "--batch_size", "4", "--num-workers", "0"]
    answer = subprocess.run(
        [containers("train"), "-m", "penumo_assets.jobs.train", *options],
        cwd=tmp_path,
        env=environment(
            PYTHONPATH=str(unpacked),
            PENUMO_OPT_ML=str(tmp_path / "ml"),
            MLFLOW_TRACKING_URI=f"sqlite:///{tmp_path}/mlflow.db",
            **channels,
        ),
        capture_output=True,
        text=True,
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    values = read_result(tmp_path / "ml")
    assert values["epochs_run"] == 1
    assert values["mlflow_model_uri"].startswith("models:/"), answer.stdout


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
