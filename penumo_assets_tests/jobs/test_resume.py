"""A training killed at any moment and started again gives, bit for bit, the model of one never killed."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from penumo_assets.configs.train import TrainConfig
from penumo_assets.jobs.checkpoint import Checkpoints
from penumo_assets.jobs.contract import JobError
from penumo_assets.jobs.train import __main__ as train
from penumo_assets.jobs.train import fit
from penumo_assets.jobs.train.distributed import World, share_batch_norm
from penumo_assets_tests.jobs import tiny_train
from penumo_assets_tests.jobs.training_samples import packed_set, read_result, use_channels
from penumo_assets_tests.models.tiny import use_tiny_networks

OPTIONS = [
    "--resolution",
    "64",
    "--batch-size",
    "8",
    "--epochs",
    "4",
    "--mixup",
    "0.2",
    "--seed",
    "3",
    "--threads",
    "1",
]
ALONE = World(0, 1, torch.device("cpu"))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    with pytest.MonkeyPatch.context() as monkeypatch:
        return packed_set(tmp_path_factory.mktemp("set"), monkeypatch)


@pytest.fixture(autouse=True)
def _tiny_on_one_thread(monkeypatch):
    use_tiny_networks(monkeypatch.setattr)
    torch.set_num_threads(1)  # sums in another order differ in their last bit


def left_by(job):
    """The weights, and the figures of every epoch but for its speed."""
    history = [
        {name: value for name, value in epoch.items() if name != "images_per_second"}
        for epoch in read_result(job)["history"]
    ]
    return (job / "model/model.safetensors").read_bytes(), history


@pytest.fixture(scope="module")
def never_killed(dataset, tmp_path_factory):
    """What a training that ran through left (`left_by`), by its options."""
    models = {}

    def run(options: list[str]) -> tuple:
        key = tuple(options)
        if key not in models:
            with pytest.MonkeyPatch.context() as monkeypatch:
                use_tiny_networks(monkeypatch.setattr)
                opt_ml = tmp_path_factory.mktemp("whole")
                use_channels(monkeypatch, opt_ml, dataset)
                train.main(options)
            models[key] = left_by(opt_ml)
        return models[key]

    return run


@pytest.fixture
def job(tmp_path, dataset, monkeypatch):
    use_channels(monkeypatch, tmp_path, dataset)
    return tmp_path


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("steps", [1, 4, 6, 13])
def test_a_training_stopped_after_any_step_resumes_to_the_same_model(job, never_killed, steps, optimizer):
    options = [*OPTIONS, "--optimizer", optimizer, "--checkpoint-steps", "3"]
    architecture, config, _, _ = train.parse_arguments(options)
    asked = iter(range(1, 1000))
    with pytest.raises(JobError, match="a checkpoint is written"):
        train.train(ALONE, architecture, config, lambda: next(asked) == steps)
    assert not (job / "model/model.safetensors").exists()
    train.main(options)
    assert left_by(job) == never_killed(options)


def test_a_training_killed_without_warning_resumes_to_the_same_model(job, never_killed):
    options = [*OPTIONS, "--epochs", "12", "--early-stopping-patience", "0", "--checkpoint-steps", "1"]
    command = [sys.executable, "-m", tiny_train.MODULE, *options]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=dict(os.environ))
    deadline = time.monotonic() + 120
    while not (job / "checkpoints/last.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.1)
    assert process.poll() is None, "it was to be killed while it trained"
    process.send_signal(signal.SIGKILL)
    process.wait()
    train.main(options)
    assert read_result(job)["epochs_run"] == 12
    assert left_by(job) == never_killed(options)


def test_sigterm_leaves_a_checkpoint(job, monkeypatch):
    monkeypatch.setattr(fit, "report", lambda record: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(JobError, match="stopped in epoch 2 after step 1"):
        train.main(OPTIONS)
    assert (job / "checkpoints/last.pt").is_file()


def test_a_finished_training_started_again_only_writes_its_model(job, never_killed, monkeypatch):
    expected = never_killed(OPTIONS)
    train.main(OPTIONS)
    (job / "model/model.safetensors").unlink()
    monkeypatch.setattr(train.Training, "_epoch", lambda self: pytest.fail("it trained again"))
    train.main(OPTIONS)
    assert left_by(job) == expected


def test_a_checkpoint_of_another_training_is_refused(job):
    train.main([*OPTIONS, "--epochs", "1", "--warmup-epochs", "1"])
    with pytest.raises(JobError, match="holds another training"):
        train.main([*OPTIONS, "--epochs", "2"])


@pytest.mark.parametrize("kept", [0, 100, -50])
def test_a_checkpoint_cut_short_begins_anew(job, never_killed, kept, caplog):
    architecture, config, _, _ = train.parse_arguments(OPTIONS)
    asked = iter(range(1, 1000))
    with pytest.raises(JobError):
        train.train(ALONE, architecture, config, lambda: next(asked) == 6)
    last = job / "checkpoints/last.pt"
    last.write_bytes(last.read_bytes()[:kept])
    train.main(OPTIONS)
    assert "training begins anew" in caplog.text
    assert left_by(job) == never_killed(OPTIONS)


def test_a_half_written_checkpoint_leaves_the_one_before(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path, "f")
    checkpoints.save({"n": 1}, best_epoch=0)

    def full_disk(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr("penumo_assets.jobs.checkpoint.os.fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        checkpoints.save({"n": 2}, best_epoch=0)
    assert checkpoints.load() == {"n": 1}


def test_the_best_weights_before_stay_until_the_checkpoint_names_the_new_ones(tmp_path):
    checkpoints = Checkpoints(tmp_path, "f")
    checkpoints.save_best({"w": torch.ones(1)}, 1)
    checkpoints.save({}, best_epoch=1)
    checkpoints.save_best({"w": torch.zeros(1)}, 2)
    assert checkpoints.load_best(1)["w"] == 1  # a kill now goes on from epoch 1's checkpoint
    checkpoints.save({}, best_epoch=2)
    assert checkpoints.load_best(2)["w"] == 0
    assert not (tmp_path / "best-1.safetensors").exists()
    with pytest.raises(JobError, match="best epoch 1 cannot be read"):
        checkpoints.load_best(1)


@pytest.fixture
def processes(monkeypatch):
    """Several processes on this host, each with the tiny network."""
    monkeypatch.setattr(train, "MODULE", tiny_train.MODULE)
    monkeypatch.setenv("MASTER_PORT", str(29500 + os.getpid() % 2000))


def test_two_processes_learn_what_one_does_with_the_same_global_batch(tmp_path, dataset, monkeypatch, processes):
    # bfloat16 would round the two differently.
    options = [*OPTIONS, "--mixup", "0", "--epochs", "3", "--gradient-clip", "0.5", "--amp", "fp32"]
    results = {}
    for number in (1, 2):
        use_channels(monkeypatch, tmp_path / str(number), dataset)
        train.main([*options, "--processes-per-host", str(number)])
        results[number] = read_result(tmp_path / str(number))
    assert [results[number]["processes"] for number in (1, 2)] == [1, 2]
    for name in ("train_loss", "validation_loss", "validation_roc_auc"):
        one, two = ([record[name] for record in results[number]["history"]] for number in (1, 2))
        np.testing.assert_allclose(two, one, rtol=1e-4)


HOSTS = ["127.0.0.1", "localhost"]  # their names are their addresses


def on_two_hosts(roots, options):
    """Start the job on two hosts, each with a disk of its own; their processes."""
    environment = dict(os.environ) | {"SM_HOSTS": json.dumps(HOSTS)}
    command = [sys.executable, "-m", tiny_train.MODULE, *options]
    return [
        subprocess.Popen(
            command,
            env=environment | {"SM_CURRENT_HOST": host, "PENUMO_OPT_ML": str(root)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        for host, root in zip(HOSTS, roots, strict=True)
    ]


@pytest.mark.slow
def test_two_hosts_without_a_common_disk_end_and_resume_with_the_same_model(tmp_path, dataset, monkeypatch, processes):
    options = [*OPTIONS, "--amp", "fp32", "--epochs", "12", "--early-stopping-patience", "0", "--checkpoint-steps", "1"]
    use_channels(monkeypatch, tmp_path / "one", dataset)
    train.main([*options, "--processes-per-host", "2"])
    roots = [tmp_path / "first", tmp_path / "second"]
    interrupted = on_two_hosts(roots, options)
    deadline = time.monotonic() + 120
    while not (roots[0] / "checkpoints/last.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    for host in interrupted:
        assert host.poll() is None, "they were to be killed while they trained"
        os.killpg(host.pid, signal.SIGKILL)
        host.communicate()
    for host in on_two_hosts(roots, options):
        output, _ = host.communicate(timeout=180)
        assert host.returncode == 0, output
    assert "going on from the checkpoint" in output
    assert not list((tmp_path / "second/checkpoints").iterdir()), "the second host has no checkpoint"
    ours, theirs = (load_file(root / "model/model.safetensors") for root in (tmp_path / "one", roots[0]))
    torch.testing.assert_close(theirs, ours)
    losses = [[epoch["train_loss"] for epoch in read_result(root)["history"]] for root in (tmp_path / "one", roots[0])]
    assert losses[1] == pytest.approx(losses[0])


@pytest.mark.slow
def test_a_checkpoint_that_one_process_refuses_stops_all_of_them(tmp_path, dataset, monkeypatch, processes):
    use_channels(monkeypatch, tmp_path, dataset)
    train.main([*OPTIONS, "--epochs", "2", "--processes-per-host", "2"])
    with pytest.raises(JobError, match="holds another training"):
        train.main([*OPTIONS, "--epochs", "3", "--processes-per-host", "2"])


def test_a_failing_process_leaves_its_reason(job, dataset, monkeypatch, processes):
    monkeypatch.setenv("SM_CHANNEL_VALIDATION", str(dataset / "train"))
    with pytest.raises(JobError, match="patients stand in both train and validation"):
        train.main([*OPTIONS, "--processes-per-host", "2"])


def test_shared_batch_norm_alone_is_batch_norm(tmp_path):
    """In a world of one process the shared sums are the plain ones: same output, gradient and statistics."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    try:
        plain = torch.nn.Sequential(torch.nn.BatchNorm2d(3)).double()
        shared = share_batch_norm(torch.nn.Sequential(torch.nn.BatchNorm2d(3)), torch.device("cpu")).double()
        images = torch.randn(4, 3, 5, 5, dtype=torch.float64) * 3 + 1
        inputs = [images.clone().requires_grad_(), images.clone().requires_grad_()]
        outputs = [network(values) for network, values in zip((plain, shared), inputs, strict=True)]
        for output in outputs:
            output.pow(3).sum().backward()
        torch.testing.assert_close(outputs[1], outputs[0])
        torch.testing.assert_close(inputs[1].grad, inputs[0].grad)
        torch.testing.assert_close(dict(shared.state_dict()), dict(plain.state_dict()))
    finally:
        torch.distributed.destroy_process_group()


def test_the_fingerprint_tells_trainings_apart():
    config = TrainConfig()
    same = train.fingerprint("resnet34", TrainConfig.from_hyperparameters(config.to_hyperparameters()), "digest")
    assert train.fingerprint("resnet34", config, "digest") == same
    others = {
        train.fingerprint("resnet50", config, "digest"),
        train.fingerprint("resnet34", config, "other"),
        train.fingerprint("resnet34", TrainConfig(seed=1), "digest"),
    }
    assert len(others | {same}) == 4
    assert json.dumps(config.to_hyperparameters())
