"""What is saved loads again and answers the same; what is wrong is refused with its reason."""

import errno
import io
import json
import os
import pickle
import tarfile

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from penumo_assets.models import resnet34
from penumo_assets.models.archive import extract_model_archive
from penumo_assets.models.classifier import build_classifier, load_classifier, save_classifier
from penumo_assets.models.errors import ModelError
from penumo_assets.models.inputs import default_normalisation, normalise
from penumo_assets.models.pretrained import imagenet_weights, read_weights
from penumo_assets_tests.models.tiny import use_tiny_networks


def metadata(**changes):
    values = {
        "schema": "penumo/model/1",
        "architecture": "resnet34",
        "classes": ["normal", "pneumonia"],
        "input_channels": 4,
        "image_size": 64,
        "normalisation": default_normalisation(4),
        "threshold": 0.4,
        "split_salt": "s",
        "dataset_digest": "d",
        "metrics": {"validation_roc_auc": 0.9},
        "versions": {"torch": "2"},
        "hyperparameters": {"epochs": "1"},
    }
    return values | changes


@pytest.fixture(autouse=True)
def _tiny(monkeypatch):
    use_tiny_networks(monkeypatch.setattr)


@pytest.fixture
def network():
    return build_classifier("resnet34", 2, 4).eval()


@pytest.fixture
def saved(network, tmp_path):
    save_classifier(tmp_path / "model", network, metadata())
    return tmp_path / "model"


def rewrite_metadata(folder, **changes):
    path = folder / "metadata.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_saved_classifier_answers_as_before(network, saved):
    loaded, values = load_classifier(saved)
    batch = torch.randint(0, 256, (2, 224, 224, 4), dtype=torch.uint8)
    with torch.no_grad():
        torch.testing.assert_close(loaded(normalise(batch, values)), network(normalise(batch, metadata())))
    assert values == metadata()
    assert not loaded.training


def test_extra_metadata_survives(network, tmp_path):
    save_classifier(tmp_path, network, metadata(temperature=1.5))
    assert load_classifier(tmp_path)[1]["temperature"] == 1.5


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"architecture": "vgg16"}, "unknown architecture 'vgg16'"),
        ({"architecture": "resnet50"}, "does not fit"),
        ({"classes": ["a", "b", "c"]}, "does not fit"),
        ({"input_channels": 3, "normalisation": default_normalisation(3)}, "does not fit"),
        ({"input_channels": 3}, "needs 3 means"),
        ({"classes": ["a", "a"]}, "classes repeat"),
        ({"normalisation": {"mean": [0.0] * 4, "std": [0.0] * 4}}, "must be positive"),
        ({"image_size": 5000}, "image_size"),
    ],
)
def test_metadata_that_disagrees_with_the_weights_is_refused(saved, changes, reason):
    rewrite_metadata(saved, **changes)
    with pytest.raises(ModelError, match=reason):
        load_classifier(saved)


def test_missing_and_broken_files_are_refused(saved):
    (saved / "metadata.json").write_text("{")
    with pytest.raises(ModelError, match="not JSON"):
        load_classifier(saved)
    (saved / "metadata.json").unlink()
    with pytest.raises(ModelError, match=r"no metadata\.json"):
        load_classifier(saved)


def test_weights_cut_short_are_refused(saved):
    path = saved / "model.safetensors"
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ModelError, match="does not fit"):
        load_classifier(saved)


def test_a_pickle_in_the_place_of_weights_is_refused(saved):
    (saved / "model.safetensors").write_bytes(pickle.dumps({"fc.weight": torch.zeros(1)}))
    with pytest.raises(ModelError):
        load_classifier(saved)


class Exploit:
    def __reduce__(self):
        return (print, ("code ran",))


@pytest.mark.parametrize("name", ["weights.pth", "weights.pt", "weights.bin", "weights.safetensors"])
def test_pretrained_weights_that_would_run_code_are_refused(tmp_path, capsys, name):
    torch.save({"conv1.weight": torch.zeros(1), "x": Exploit()}, tmp_path / name)
    with pytest.raises(ModelError, match=name):
        read_weights(tmp_path / name)
    assert "code ran" not in capsys.readouterr().out


def test_pretrained_weights_are_read_from_safetensors_alone(tmp_path):
    weights = {"a": torch.arange(3.0)}
    save_file(weights, tmp_path / "w.safetensors")
    torch.testing.assert_close(read_weights(tmp_path / "w.safetensors"), weights)
    torch.save(weights, tmp_path / "w.pth")
    with pytest.raises(ModelError, match=r"w\.pth: only \.safetensors is read"):
        read_weights(tmp_path / "w.pth")


def test_weights_of_another_architecture_are_refused(network):
    with pytest.raises(ModelError, match="not for resnet50"):
        build_classifier("resnet50", 2, 4, network.state_dict())
    with pytest.raises(ModelError, match=r"no conv1\.weight"):
        build_classifier("resnet34", 2, 4, {"features.0.weight": torch.zeros(1)})


def test_weights_saved_by_a_wrapper_lose_its_prefix(network):
    wrapped = {f"module.{name}": tensor for name, tensor in network.state_dict().items()}
    model = build_classifier("resnet34", 2, 4, wrapped)
    torch.testing.assert_close(model.fc.weight, network.fc.weight)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [(("vgg16", 2, 4), "unknown architecture"), (("resnet34", 1, 4), "2 classes"), (("resnet34", 2, 1), "3 .* or 4")],
)
def test_networks_that_make_no_sense_are_refused(arguments, reason):
    with pytest.raises(ModelError, match=reason):
        build_classifier(*arguments)


def test_imagenet_weights_without_a_network_say_how_to_give_a_uri(monkeypatch):
    def offline():
        raise OSError("Name or service not known")

    monkeypatch.setattr(resnet34, "imagenet_weights", offline)
    with pytest.raises(ModelError, match="give its URI as pretrained"):
        imagenet_weights("resnet34")


@pytest.mark.parametrize("channels", [3, 4])
def test_normalise_is_the_plain_formula(channels):
    rng = np.random.default_rng(0)
    batch = rng.integers(0, 256, (2, 224, 224, 4), dtype=np.uint8)
    values = {"input_channels": channels, "image_size": 224, "normalisation": default_normalisation(channels)}
    result = normalise(torch.from_numpy(batch), values)
    mean, std = np.array(values["normalisation"]["mean"]), np.array(values["normalisation"]["std"])
    expected = ((batch[..., :channels] / 255 - mean) / std).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(result.numpy(), expected, atol=1e-5)
    assert result.is_contiguous(memory_format=torch.channels_last)
    assert result.dtype == torch.float32


def test_a_lower_resolution_averages_over_blocks():
    batch = np.random.default_rng(0).integers(0, 256, (1, 224, 224, 4), dtype=np.uint8)
    values = {"input_channels": 4, "image_size": 112, "normalisation": {"mean": [0.0] * 4, "std": [1.0] * 4}}
    result = normalise(torch.from_numpy(batch), values)
    expected = batch.reshape(1, 112, 2, 112, 2, 4).mean(axis=(2, 4)).transpose(0, 3, 1, 2) / 255
    np.testing.assert_allclose(result.numpy(), expected, atol=1e-6)


def test_normalise_leaves_its_input_alone():
    batch = torch.full((1, 224, 224, 4), 7, dtype=torch.uint8)
    normalise(batch, metadata(image_size=224))
    assert (batch == 7).all()


@pytest.mark.parametrize(
    "batch", [torch.zeros(1, 224, 224, 4), torch.zeros(1, 100, 224, 4, dtype=torch.uint8), torch.zeros(224, 224, 4)]
)
def test_batches_of_another_kind_are_refused(batch):
    with pytest.raises(ValueError, match="expected"):
        normalise(batch, metadata())


def archive(path, *members):
    """A tar.gz of (TarInfo or name, bytes) pairs."""
    with tarfile.open(path, "w:gz") as file:
        for member, data in members:
            info = member if isinstance(member, tarfile.TarInfo) else tarfile.TarInfo(member)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return path


def special(name, kind, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def test_an_archive_is_unpacked_to_the_folder_of_its_metadata(tmp_path):
    path = archive(tmp_path / "model.tar.gz", ("./metadata.json", b"{}"), ("./model.safetensors", b"w"))
    folder = extract_model_archive(path, tmp_path / "out")
    assert (folder / "model.safetensors").read_bytes() == b"w"


@pytest.mark.parametrize(
    ("member", "reason"),
    [
        ("../evil", "leads outside"),
        ("/etc/evil", "leads outside"),
        ("a/../../evil", "leads outside"),
        (special("link", tarfile.SYMTYPE, "/etc/passwd"), "link or a device"),
        (special("link", tarfile.LNKTYPE, "metadata.json"), "link or a device"),
        (special("null", tarfile.CHRTYPE), "link or a device"),
        (special("pipe", tarfile.FIFOTYPE), "link or a device"),
    ],
)
def test_hostile_archives_are_refused(tmp_path, member, reason):
    path = archive(tmp_path / "model.tar.gz", ("metadata.json", b"{}"), (member, b""))
    with pytest.raises(ModelError, match=reason):
        extract_model_archive(path, tmp_path / "deep" / "out")
    assert not list(tmp_path.rglob("evil"))


def test_an_archive_that_grows_too_large_is_refused(tmp_path):
    path = archive(tmp_path / "model.tar.gz", ("metadata.json", b"{}"), ("model.safetensors", b"0" * 5000))
    with pytest.raises(ModelError, match="larger than"):
        extract_model_archive(path, tmp_path / "out", max_bytes=1000)
    assert not (tmp_path / "out" / "model.safetensors").exists()


def test_an_archive_for_which_the_disk_has_no_room_is_not_called_broken(tmp_path, monkeypatch):
    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path))

    path = archive(tmp_path / "model.tar.gz", ("metadata.json", b"{}"))
    monkeypatch.setattr("tarfile.open", full)
    with pytest.raises(ModelError, match=r"cannot be unpacked: No space left on device$"):
        extract_model_archive(path, tmp_path / "out")


def test_broken_and_empty_archives_are_refused(tmp_path):
    whole = archive(tmp_path / "model.tar.gz", ("metadata.json", np.random.default_rng(0).bytes(5000)))
    cut = tmp_path / "cut.tar.gz"
    cut.write_bytes(whole.read_bytes()[:2000])
    with pytest.raises(ModelError, match="cannot be unpacked"):
        extract_model_archive(cut, tmp_path / "a")
    with pytest.raises(ModelError, match=r"no metadata\.json"):
        extract_model_archive(archive(tmp_path / "empty.tar.gz"), tmp_path / "b")


def test_saved_weights_are_plain_tensors(saved, network):
    assert set(load_file(saved / "model.safetensors")) == set(network.state_dict())
