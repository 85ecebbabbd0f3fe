"""What a job finds in an emulated container: its image, its share of the inputs, no way out, and time to end."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from penumo_assets.resources.compute.spec import JobFailed
from penumo_assets_tests.aws.emulator import Emulator
from penumo_assets_tests.aws.emulator.server import wait_for
from penumo_assets_tests.aws.job_requests import ended, run_code, source
from penumo_assets_tests.resources.bench import sagemaker_bench

AWS_IMAGE = "763104351884.dkr.ecr.eu-central-1.amazonaws.com/pytorch:2.13.0-cpu-amzn2023-sagemaker"


def said(emulator: Emulator, name: str) -> list[str]:
    """The lines of a job's log, once it has completed."""
    answer = ended(emulator.client("sagemaker"), name)
    assert answer["ProcessingJobStatus"] == "Completed", answer
    return emulator.api.jobs["Processing", name].messages()


def test_hosts_can_share_an_input_by_key(emulator: Emulator) -> None:
    emulator.environment("rules")
    s3, names = emulator.client("s3"), [f"film-{number}" for number in range(5)]
    for name in names:
        s3.put_object(Bucket="rules", Key=f"films/{name}", Body=b"film")
    manifest = json.dumps([{"prefix": "s3://rules/films/"}, *names])
    s3.put_object(Bucket="rules", Key="films.manifest", Body=manifest.encode())
    item = source("s3://rules/films.manifest")
    item["S3Input"]["S3DataDistributionType"] = "ShardedByS3Key"
    code = (
        "import os, json, pathlib; root = pathlib.Path(os.environ['PENUMO_OPT_ML']);"
        "host = json.loads((root / 'config/resourceconfig.json').read_text())['current_host'];"
        "out = root / 'processing/output/x'; out.mkdir(parents=True);"
        "(out / host).write_text(' '.join(sorted(os.listdir(root / 'processing/input/films'))))"
    )
    run_code(emulator, "sharded", code, hosts=2, inputs=[item])
    said(emulator, "sharded")
    shares = [
        s3.get_object(Bucket="rules", Key=f"out/{host}")["Body"].read().decode().split()
        for host in ("algo-1", "algo-2")
    ]
    assert sorted(shares[0] + shares[1]) == names
    assert shares[0]
    assert shares[1]


LOOK = """
import importlib.util, socket
names = "torch torchvision cv2 mlflow pydicom dagster moto pytest obstore penumo_assets penumo_assets_tests pip"
print(*[name for name in names.split() if importlib.util.find_spec(name)])
for place in ("192.0.2.1", "films.example.org"):
    try:
        socket.create_connection((place, 443), timeout=5)
    except OSError as error:
        print(error.strerror)
print(socket.gethostbyname("algo-2"))
"""


def test_a_container_has_its_image_s_packages_and_no_way_out(emulator: Emulator) -> None:
    run_code(emulator, "look", LOOK)
    run_code(emulator, "look-aws", LOOK, image=AWS_IMAGE)
    around = ["Network is unreachable", "Name or service not known", "127.0.0.2"]
    assert said(emulator, "look") == ["torch torchvision cv2 mlflow pydicom pip", *around]
    assert said(emulator, "look-aws") == ["torch torchvision mlflow pip", *around]


def test_what_an_image_lacks_cannot_be_installed_without_an_index_and_the_job_says_so(
    emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = sagemaker_bench(emulator, tmp_path, monkeypatch, image=AWS_IMAGE)
    with pytest.raises(JobFailed, match=r"pip cannot install what the image lacks: .*PENUMO_PIP_INDEX_URL"):
        bench.run(environment={"PIP_RETRIES": "0"})
    assert bench.starts() == 0


def test_a_host_that_fails_ends_the_others(emulator: Emulator) -> None:
    code = (
        "import os, json, pathlib, sys, time; root = pathlib.Path(os.environ['PENUMO_OPT_ML']);"
        "host = json.loads((root / 'config/resourceconfig.json').read_text())['current_host'];"
        "sys.exit(3) if host == 'algo-2' else time.sleep(100)"
    )
    run_code(emulator, "one-fails", code, hosts=2)
    answer = ended(emulator.client("sagemaker"), "one-fails")
    assert answer["FailureReason"] == "AlgorithmError: , exit code: 3"


DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(100)"


def test_a_program_that_does_not_end_when_it_is_asked_to_is_killed_when_its_time_is_up() -> None:
    emulator = Emulator(grace_seconds=1).start()
    try:
        run_code(emulator, "deaf", DEAF)
        job: Any = emulator.api.jobs["Processing", "deaf"]
        wait_for(lambda: job.messages() == ["deaf"])
        started = time.monotonic()
        emulator.client("sagemaker").stop_processing_job(ProcessingJobName="deaf")
        wait_for(lambda: job.ended)
        assert job.status == "Stopped"
        assert time.monotonic() - started >= 1
    finally:
        emulator.stop()


IN_THE_BACKGROUND = """import signal, sys
from pathlib import Path
signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as Dagster leaves it where a shell has started it in the background
from penumo_assets.resources.compute.sagemaker import start
program = [sys.executable, "-c", "import time; print('runs', flush=True); time.sleep(600)"]
sys.exit(100 - start.run(program, {}, Path("."))[1])
"""


def test_a_program_is_stopped_also_where_the_signal_was_ignored_before() -> None:
    with subprocess.Popen([sys.executable, "-c", IN_THE_BACKGROUND], stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"runs\n"
        process.terminate()
        assert process.wait(60) == 100 + signal.SIGTERM
