"""What only the SageMaker runner promises: retries by cause, logs, limits, secrets. The rest: test_job_runners.py."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from dagster import DagsterInstance, Failure, MetadataValue, materialize

from penumo_assets.assets.training import trained_model
from penumo_assets.resources.compute.spec import JobFailed, JobInput
from penumo_assets.resources.profile import profile_resources
from penumo_assets.resources.storage.root import Storage
from penumo_assets.resources.tracking import Tracking
from penumo_assets_tests.aws.emulator import Emulator, JobScript
from penumo_assets_tests.aws.emulator.server import wait_for
from penumo_assets_tests.resources.bench import Bench, sagemaker_bench

NO_CAPACITY = "CapacityError: Unable to provision requested ML compute capacity. Please retry using a different type."
INTERNAL = "InternalServerError: We encountered an internal error. Please try again."


@pytest.fixture
def bench(emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return sagemaker_bench(emulator, tmp_path, monkeypatch)


@pytest.fixture
def make_bench(emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    return lambda **settings: sagemaker_bench(emulator, tmp_path, monkeypatch, **settings)


def created(emulator: Emulator, bench: Bench) -> list[Any]:
    """Requests that created a job of this test."""
    calls = emulator.calls("CreateProcessingJob") + emulator.calls("CreateTrainingJob")
    return [call for call in calls if call.name.startswith(bench.runner.settings.job_name_prefix) and not call.error]


def test_what_is_missing_is_named_at_once_and_no_job_is_created(
    emulator: Emulator, bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    before = len(emulator.requests)
    runner = type(bench.runner)(storage=Storage(root=str(tmp_path)))
    with pytest.raises(JobFailed) as caught:
        runner.run(bench.context, bench.spec())
    for name in ("PENUMO_ROOT", "PENUMO_SAGEMAKER_ROLE", "AWS_DEFAULT_REGION", "AWS_ACCESS_KEY_ID"):
        assert name in str(caught.value)
    assert len(emulator.requests) == before


def test_a_run_does_not_begin_while_something_is_missing(
    emulator: Emulator, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PENUMO_SAGEMAKER_ROLE")
    before = len(emulator.requests)
    with DagsterInstance.ephemeral() as instance:
        result = materialize(
            [trained_model],
            partition_key="resnet34",
            instance=instance,
            resources=profile_resources(),
            raise_on_error=False,
        )
    assert not result.success
    assert any("PENUMO_SAGEMAKER_ROLE" in str(event.event_specific_data) for event in result.all_events)
    assert not any(event.is_step_event for event in result.all_events)
    assert len(emulator.requests) == before


def test_an_mlflow_server_is_asked_for_before_a_training_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)  # MLflow sets it in every process that has used it
    with pytest.raises(Failure, match="MLFLOW_TRACKING_URI"):
        Tracking(tracking_uri="").job_environment("a-run")


@pytest.mark.parametrize(
    ("operation", "code"),
    [("CreateProcessingJob", "ThrottlingException"), ("DescribeProcessingJob", "InternalFailure")],
)
def test_a_throttled_or_failed_request_is_repeated(emulator: Emulator, bench: Bench, operation: str, code: str) -> None:
    emulator.fail(operation, code, "Rate exceeded", times=2)
    assert bench.run().metadata["job_attempt"] == 1
    assert len(created(emulator, bench)) == 1


@pytest.mark.parametrize("reason", [NO_CAPACITY, INTERNAL])
@pytest.mark.parametrize("kind", ["processing", "training"])
def test_a_job_that_failed_through_no_fault_of_its_program_gets_a_new_attempt(
    emulator: Emulator, bench: Bench, kind: str, reason: str
) -> None:
    emulator.script(bench.runner.settings.job_name_prefix, JobScript(failure=reason))
    assert bench.run(kind=kind).metadata["job_attempt"] == 2
    assert bench.starts() == 1
    assert any("new attempt in" in line and reason[:20] in line for line in bench.lines)


def test_when_capacity_stays_away_the_run_may_be_retried_later(emulator: Emulator, make_bench: Any) -> None:
    bench = make_bench(max_retries=2)
    for _ in range(3):
        emulator.script(bench.runner.settings.job_name_prefix, JobScript(failure=NO_CAPACITY))
    with pytest.raises(JobFailed, match="CapacityError") as caught:
        bench.run()
    assert caught.value.transient
    assert len(created(emulator, bench)) == 3


QUOTA = (
    "The account-level service limit 'ml.m5.xlarge for processing job usage' is {} Instances, with current utilization "
    "of {} Instances and a request delta of {} Instances. Please use AWS Service Quotas to request an increase."
)


def test_a_full_quota_is_waited_for_by_the_clock(emulator: Emulator, make_bench: Any) -> None:
    bench = make_bench(max_retries=1, retry_seconds=0.01)
    emulator.fail("CreateProcessingJob", "ResourceLimitExceeded", QUOTA.format(4, 4, 1), times=5)
    assert bench.run().metadata["job_attempt"] == 1
    bench.runner.settings.__dict__["quota_wait_hours"] = 0.0
    emulator.fail("CreateProcessingJob", "ResourceLimitExceeded", QUOTA.format(4, 4, 1))
    with pytest.raises(JobFailed, match="request delta") as caught:
        bench.run(partition="other")
    assert caught.value.transient


@pytest.mark.parametrize("limit", [0, 2])
def test_a_quota_that_can_never_do_is_final_at_once(
    emulator: Emulator, bench: Bench, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    monkeypatch.setitem(emulator.limits.quotas, "ml.m5.xlarge for training job usage", limit)
    monkeypatch.setitem(bench.runner.settings.__dict__, "training_instance_count", 3)
    with pytest.raises(JobFailed, match="Ask for a higher one in Service Quotas") as caught:
        bench.runner.run(bench.context, replace(bench.spec(kind="training"), program="train"))
    assert not caught.value.transient
    assert not any("again in" in line for line in bench.lines)


def test_a_quota_that_another_job_uses_up_is_waited_for(
    emulator: Emulator, make_bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(emulator.limits.quotas, "ml.m5.xlarge for processing job usage", 1)
    bench = make_bench()
    other = Thread(target=lambda: bench.run("wait", partition="other"))
    other.start()
    wait_for(lambda: created(emulator, bench))
    bench.context.log.warning = lambda line: (bench.lines.append(line), bench.open_gate())
    assert bench.run().metadata["job_attempt"] == 1
    other.join()
    assert any("current utilization of 1 Instances and a request delta of 1" in line for line in bench.lines)


def test_a_job_that_the_service_does_not_know_yet_is_waited_for(
    emulator: Emulator, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(emulator.limits, "unseen_seconds", 1.0)
    assert bench.run().metadata["job_attempt"] == 1
    assert len(created(emulator, bench)) == 1


def test_a_job_whose_description_is_denied_at_first_is_waited_for(emulator: Emulator, bench: Bench) -> None:
    def deny(line: str) -> None:
        bench.lines.append(line)
        if line.startswith("Started job"):
            emulator.fail("DescribeProcessingJob", "AccessDeniedException", times=2)

    bench.context.log.info = deny
    assert bench.run().metadata["job_attempt"] == 1
    emulator.fail("DescribeProcessingJob", "AccessDeniedException")
    with pytest.raises(JobFailed, match=r"AccessDeniedException: .*iam_orchestrator\.json"):
        bench.run(partition="other")
    assert len(created(emulator, bench)) == 1


def test_throttled_descriptions_cost_no_job(emulator: Emulator, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emulator.limits, "requests_per_second", 2)
    assert bench.run(lines=200).metadata["job_attempt"] == 1
    assert len(created(emulator, bench)) == 1


@pytest.mark.parametrize("repository", ["pytorch-nobody-has", "films"])
def test_an_image_that_the_role_may_not_pull_is_refused_before_anything_is_paid(
    emulator: Emulator, make_bench: Any, repository: str
) -> None:
    bench = make_bench(image=f"123456789012.dkr.ecr.eu-central-1.amazonaws.com/{repository}:1")
    with pytest.raises(JobFailed, match=f"Cannot find repository: {repository}.*PENUMO_IMAGE"):
        bench.run()
    assert created(emulator, bench) == []


def test_every_good_answer_starts_a_new_count_of_retries(
    emulator: Emulator, make_bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job of a day outlives more faults of the service than one request would be repeated for."""
    from penumo_assets.resources.compute.sagemaker.job import SageMakerJob

    bench = make_bench(max_retries=1, retry_seconds=0.01)
    real, asked = SageMakerJob.describe, [0]

    def describe(job: SageMakerJob) -> Any:
        asked[0] += 1
        if asked[0] > 10:
            bench.open_gate()
        if asked[0] % 2:
            raise JobFailed("SageMaker does not answer", transient=True)
        return real(job)

    monkeypatch.setattr(SageMakerJob, "describe", describe)
    assert bench.run("wait").metadata["job_attempt"] == 1
    assert len(created(emulator, bench)) == 1
    assert sum("asking again" in line for line in bench.lines) >= 5


def test_a_gpu_that_torch_does_not_see_fails_the_job(
    emulator: Emulator, make_bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This machine has none, so a job on a GPU instance finds what it would find in an image without CUDA."""
    for kind in ("training", "processing"):
        monkeypatch.setitem(emulator.limits.quotas, f"ml.g5.xlarge for {kind} job usage", 1)
    bench = make_bench(training_instance_type="ml.g5.xlarge", processing_instance_type="ml.g5.xlarge")
    for kind in ("training", "processing"):
        with pytest.raises(JobFailed, match=r"torch finds no CUDA on ml\.g5\.xlarge.*PENUMO_IMAGE"):
            bench.run(kind=kind)
    assert bench.starts() == 0


def test_what_sagemaker_refuses_is_told_in_its_words(emulator: Emulator, make_bench: Any) -> None:
    bench = make_bench(processing_instance_type="ml.huge")
    with pytest.raises(JobFailed, match=r"ValidationException.*InstanceType"):
        bench.run()


def test_a_program_out_of_memory_names_the_instance_to_raise(bench: Bench) -> None:
    with pytest.raises(JobFailed, match=r"out of memory on ml\.m5\.xlarge: .*PENUMO_PROCESSING_INSTANCE_TYPE"):
        bench.run("exhaust")
    with pytest.raises(JobFailed, match=r"out of memory on ml\.m5\.xlarge: .*PENUMO_TRAINING_INSTANCE_TYPE"):
        bench.run("crash", kind="training")


def test_a_failure_leads_to_the_console(bench: Bench) -> None:
    with pytest.raises(JobFailed) as caught:
        bench.run("fail")
    metadata = caught.value.metadata
    name = metadata["job_name"]
    assert metadata["job_url"] == MetadataValue.url(
        f"https://eu-central-1.console.aws.amazon.com/sagemaker/home?region=eu-central-1#/processing-jobs/{name}"
    )
    assert "$252Faws$252Fsagemaker$252FProcessingJobs" in metadata["job_log_url"].value


def test_a_job_tells_what_it_cost(bench: Bench) -> None:
    metadata = bench.run(kind="training").metadata
    assert metadata["instance"] == "1 x ml.m5.xlarge"
    assert metadata["billable_seconds"] >= 1


@pytest.mark.parametrize("script", [JobScript(late_log_seconds=1.5), JobScript(repeat_log_events=True)])
def test_no_line_of_the_log_is_lost_or_doubled(emulator: Emulator, bench: Bench, script: JobScript) -> None:
    emulator.script(bench.runner.settings.job_name_prefix, script)
    bench.run(lines=60)
    lines = [line for line in bench.lines if line.startswith("line ")]
    assert sorted(lines) == sorted(f"line {number}" for number in range(60))
    if script.repeat_log_events:
        assert lines == [f"line {number}" for number in range(60)]


def test_lines_arrive_while_the_job_runs(bench: Bench) -> None:
    def open_gate(line: str) -> None:
        bench.lines.append(line)
        if line == "first line":
            bench.open_gate()

    bench.context.log.info = open_gate
    bench.run("wait")
    assert bench.lines[-1] == "last line"


def test_a_log_that_cannot_be_read_does_not_stop_the_job(emulator: Emulator, bench: Bench) -> None:
    emulator.fail("FilterLogEvents", "AccessDeniedException", times=1000)
    try:
        assert bench.run(lines=1).metadata["job_status"] == "Completed"
    finally:
        emulator.heal()
    assert [line for line in bench.lines if "cannot be read" in line] == [
        "the job's log cannot be read from CloudWatch (AccessDeniedException); the job goes on"
    ]


def test_when_the_service_is_away_for_a_while_the_job_is_found_again_and_no_line_comes_twice(
    emulator: Emulator, bench: Bench
) -> None:
    def open_gate(line: str) -> None:
        bench.lines.append(line)
        if line == "first line":
            emulator.fail("DescribeProcessingJob", "ServiceUnavailable")
        if "asking again in" in line:
            bench.open_gate()

    bench.context.log.info = bench.context.log.warning = open_gate
    assert bench.run("wait").metadata["job_attempt"] == 1
    assert len(created(emulator, bench)) == 1
    assert [line for line in bench.lines if line.endswith(" line")] == ["first line", "last line"]


def test_an_interrupted_spot_training_goes_on_from_its_checkpoint(emulator: Emulator, make_bench: Any) -> None:
    bench = make_bench(use_spot=True)
    emulator.script(bench.runner.settings.job_name_prefix, JobScript(interrupt_at_checkpoint=True))
    result = bench.run("checkpoint", kind="training")
    assert bench.starts() == 2
    assert result.metadata["job_attempt"] == 1
    (request,) = created(emulator, bench)
    assert request.params["EnableManagedSpotTraining"]
    assert request.params["StoppingCondition"]["MaxWaitTimeInSeconds"] >= 24 * 3600
    bench.runner.discard(result.job_name)
    assert not [*bench.store.list_objects("jobs"), *bench.store.list_objects("inputs")]


def test_a_job_that_hangs_is_ended_by_its_longest_runtime(emulator: Emulator, bench: Bench) -> None:
    emulator.script(bench.runner.settings.job_name_prefix, JobScript(hang=True))
    with pytest.raises(JobFailed, match="run for the longest time it may"):
        bench.run(max_runtime_seconds=1)


def test_a_job_that_somebody_stops_is_told_to_have_been_stopped(emulator: Emulator, bench: Bench) -> None:
    def stop(line: str) -> None:
        if line == "first line":
            (request,) = created(emulator, bench)
            emulator.client("sagemaker").stop_processing_job(ProcessingJobName=request.name)

    bench.context.log.info = stop
    with pytest.raises(JobFailed, match=r"was stopped$") as caught:
        bench.run("wait")
    assert not caught.value.transient


def test_a_job_that_another_process_has_just_created_is_attached_to(
    emulator: Emulator, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    from penumo_assets.resources.compute.sagemaker.job import SageMakerJob

    real, unseen = SageMakerJob.describe, [True]
    bench.run()

    def describe(job: SageMakerJob) -> Any:
        return None if unseen and unseen.pop() else real(job)

    monkeypatch.setattr(SageMakerJob, "describe", describe)
    assert bench.run().metadata["job_reused"]
    assert [call.error for call in emulator.calls("CreateProcessingJob")][-1] == "ResourceInUse"
    assert bench.starts() == 1


def test_a_secret_reaches_the_program_and_nobody_who_describes_the_job(
    emulator: Emulator, make_bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = "a secret that is long"
    arn = emulator.client("secretsmanager").create_secret(Name="deid", SecretString=key)["ARN"]
    bench = make_bench(secret_arns={"PENUMO_DEID_KEY": arn})
    monkeypatch.setenv("PENUMO_DEID_KEY", key)
    result = bench.run(secrets=("PENUMO_DEID_KEY",))
    assert json.loads(result.values["environment"])["PENUMO_DEID_KEY"] == key
    (request,) = created(emulator, bench)
    assert key not in json.dumps(request.params)


def test_a_secret_without_a_place_to_fetch_it_from_is_refused(
    emulator: Emulator, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENUMO_DEID_KEY", "a secret that is long")
    with pytest.raises(JobFailed, match="set PENUMO_DEID_KEY_SECRET_ARN"):
        bench.run(secrets=("PENUMO_DEID_KEY",))
    assert created(emulator, bench) == []


def test_what_would_be_cut_or_refused_is_named_before_anything_is_created(emulator: Emulator, bench: Bench) -> None:
    many = {f"i{number}": JobInput("landing/c", ("a/x.txt",)) for number in range(10)}
    for changes, message in (
        ({"environment": {"TELL_ME": "x" * 257}}, "variable TELL_ME is longer than 256"),
        ({"environment": {"TELL_ME": "x" * 513}, "kind": "training"}, "variable TELL_ME is longer than 512"),
        ({"arguments": ("--text", "x" * 257)}, "longer than 256"),
        ({"arguments": ("--text", "x" * 2501), "kind": "training"}, "hyperparameter text is longer than 2500"),
        ({"arguments": ("--flag",), "kind": "training"}, "must be pairs"),
        ({"inputs": many}, "more than 9 inputs"),
    ):
        with pytest.raises(JobFailed, match=message):
            bench.run(**changes)
    assert created(emulator, bench) == []


def test_a_request_carries_the_installation_s_settings(emulator: Emulator, make_bench: Any) -> None:
    key = "arn:aws:kms:eu-central-1:123456789012:key/1"
    bench = make_bench(
        subnets=["subnet-1"],
        security_group_ids=["sg-1"],
        kms_key=key,
        volume_gb=77,
        encrypt_traffic=True,
        tags={"cost-centre": "radiology"},
        processing_instance_type="ml.c5.2xlarge",
        prepare_instance_count=3,
    )
    bench.run(partition="ward 7 (north)")
    (request,) = created(emulator, bench)
    params = request.params
    assert params["NetworkConfig"]["VpcConfig"] == {"Subnets": ["subnet-1"], "SecurityGroupIds": ["sg-1"]}
    assert params["ProcessingResources"]["ClusterConfig"] == {
        "InstanceCount": 1,  # the probe does not share its work out
        "InstanceType": "ml.c5.2xlarge",
        "VolumeSizeInGB": 77,
        "VolumeKmsKeyId": key,
    }
    assert params["ProcessingOutputConfig"]["KmsKeyId"] == key
    tags = {tag["Key"]: tag["Value"] for tag in params["Tags"]}
    assert tags["cost-centre"] == "radiology"
    assert tags["dagster/run_id"] == "a-run"
    assert tags["penumo/partition"] == "ward 7 _north_"


@pytest.mark.parametrize("kind", ["processing", "training"])
def test_a_disk_that_the_hardware_encrypts_gets_no_key(emulator: Emulator, make_bench: Any, kind: str) -> None:
    key = "arn:aws:kms:eu-central-1:123456789012:key/1"
    bench = make_bench(kms_key=key, processing_instance_type="ml.r5d.xlarge", training_instance_type="ml.r5d.xlarge")
    bench.run(kind=kind)
    (request,) = created(emulator, bench)
    cluster = request.params.get("ResourceConfig") or request.params["ProcessingResources"]["ClusterConfig"]
    assert "VolumeKmsKeyId" not in cluster
    assert key in json.dumps(request.params), "what the job writes to S3"


def test_a_job_gets_exactly_its_objects(emulator: Emulator, bench: Bench) -> None:
    bench.store.write("landing/c/a/y.txt", b"not asked for")
    bench.run()
    (request,) = created(emulator, bench)
    sources = {item["InputName"]: item["S3Input"] for item in request.params["ProcessingInputs"]}
    assert set(sources) == {"films", "notes", "code"}
    key = sources["films"]["S3Uri"].removeprefix(f"{bench.store.root_uri}/")
    assert bench.store.read_json(key) == [{"prefix": f"{bench.store.root_uri}/landing/c/"}, "a/x.txt"]


def test_the_sources_are_uploaded_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    real = type(bench.store).write
    monkeypatch.setattr(
        type(bench.store), "write", lambda store, key, data: written.append(key) or real(store, key, data)
    )
    bench.run()
    bench.run(partition="another")
    code = [key for key in written if key.startswith("code/")]
    assert [key.rsplit("/", 1)[-1] for key in code] == ["bundle.tar.gz", "start.py"]


def test_the_image_is_aws_s_own_unless_another_is_named(make_bench: Any) -> None:
    bench = make_bench(image="")
    service = bench.runner.service
    assert ".eu-central-1.amazonaws.com/pytorch:2.13.0-" in service.image_uri(bench.spec())
    assert "-cpu-" in service.image_uri(bench.spec())
    assert "-cpu-" in service.image_uri(bench.spec(kind="training"))


def test_the_registry_is_looked_up_once_in_an_installation(make_bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sagemaker package takes 1.5 s to import, and every run is a process of its own."""
    found = make_bench(image="").runner.service.image_uri(make_bench(image="").spec())
    monkeypatch.setitem(sys.modules, "sagemaker.core", None)  # importing it now fails
    assert make_bench(image="").runner.service.image_uri(make_bench(image="").spec()) == found


def test_jobs_are_never_listed_to_find_one(emulator: Emulator) -> None:
    assert not [call for call in emulator.requests if call.operation.startswith(("List", "Search"))]
