"""Model archives, tensor files and weights from elsewhere: nothing explodes, leads outside, or runs."""

import gzip
import io
import json
import os
import stat
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from penumo_assets.configs.base import ConfigError
from penumo_assets.configs.train import TrainConfig
from penumo_assets.imaging.npz_writer import npz_bytes
from penumo_assets.imaging.pack import NpzError, load_npz
from penumo_assets.imaging.segment_weights import WeightsError, parse_weights
from penumo_assets.jobs.infer.handler import BadRequest, input_fn
from penumo_assets.models.archive import extract_model_archive, read_member
from penumo_assets.models.errors import ModelError
from penumo_assets.models.pretrained import read_weights
from penumo_assets.resources.serving import write_serving_archive
from penumo_assets_tests.trust.hostile_archives import METADATA, archives, tar_gz, zipped

pytestmark = pytest.mark.trust

ARCHIVES = archives()
TENSOR = np.random.default_rng(0).integers(0, 64, (224, 224, 4), np.uint8)
PIXELS = TENSOR.tobytes()


@pytest.mark.parametrize("name", ARCHIVES)
def test_an_archive_that_explodes_or_leads_outside_is_refused_in_little_memory(name: str, tmp_path: Path) -> None:
    data, reason = ARCHIVES[name]
    (tmp_path / "model.tar.gz").write_bytes(data)
    tracemalloc.start()
    with pytest.raises(ModelError, match=reason) as caught:
        extract_model_archive(tmp_path / "model.tar.gz", tmp_path / "model", max_bytes=64 << 20)
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()
    assert str(tmp_path) not in str(caught.value), "no path of this machine in a message"
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert all(path.is_relative_to(tmp_path / "model") or path.name == "model.tar.gz" for path in written)
    assert not any(path.is_symlink() for path in tmp_path.rglob("*"))


@pytest.mark.parametrize("name", ["twice", "symlink", "name bomb", "attributes bomb", "negative", "cut off"])
def test_what_is_not_unpacked_is_not_read_either(name: str, tmp_path: Path) -> None:
    (tmp_path / "model.tar.gz").write_bytes(ARCHIVES[name][0])
    with pytest.raises(ModelError):
        read_member(tmp_path / "model.tar.gz", "last.json", 1 << 20)


@pytest.mark.parametrize("name", ["parent", "twice", "symlink"])
def test_a_serving_archive_is_not_made_of_such_a_model(name: str, tmp_path: Path) -> None:
    (tmp_path / "trained.tar.gz").write_bytes(ARCHIVES[name][0])
    with pytest.raises(ModelError):
        write_serving_archive(tmp_path / "trained.tar.gz", tmp_path / "model.tar.gz", b"{}", b"{}", {})


def test_a_serving_archive_holds_nothing_of_a_model_but_metadata_and_weights(tmp_path: Path) -> None:
    names = ["code/sitecustomize.py", "./code/torch.py", "torch.py", "lung_segmenter.safetensors", "./serving.json"]
    strays = [(name, b"print('not ours')", {}) for name in names]
    (tmp_path / "trained.tar.gz").write_bytes(tar_gz(("./model.safetensors", b"weights", {}), *strays))
    write_serving_archive(tmp_path / "trained.tar.gz", tmp_path / "model.tar.gz", b"{}", b"{}", {"version": "1"})
    folder = extract_model_archive(tmp_path / "model.tar.gz", tmp_path / "model")
    assert (folder / "metadata.json").read_bytes() == METADATA
    assert (folder / "model.safetensors").read_bytes() == b"weights"
    assert (folder / "code" / "penumo_assets" / "jobs" / "infer" / "__main__.py").is_file()
    assert "1" in (folder / "serving.json").read_text()
    assert not [path for path in folder.rglob("*") if path.is_file() and b"not ours" in path.read_bytes()]


def test_modes_and_bytes_behind_the_end_of_an_archive_are_left_out(tmp_path: Path) -> None:
    raw = gzip.decompress(tar_gz(("run", b"x", {"mode": 0o6777})))
    (tmp_path / "model.tar.gz").write_bytes(gzip.compress(raw + bytes(64 << 20), compresslevel=1))
    folder = extract_model_archive(tmp_path / "model.tar.gz", tmp_path / "model", max_bytes=1 << 20)
    assert (folder / "metadata.json").read_bytes() == METADATA
    assert not (folder / "run").stat().st_mode & (stat.S_ISUID | stat.S_ISGID | stat.S_IXUSR)


class Exploit:
    """Runs code when it is unpickled."""

    def __reduce__(self):
        return (os.mkdir, ("exploited",))


def npy(shape: str = "(224, 224, 4)", kind: str = "'|u1'", order: str = "False", body: bytes = PIXELS) -> bytes:
    header = f"{{'descr': {kind}, 'fortran_order': {order}, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header + body


def pickled() -> bytes:
    target = io.BytesIO()
    np.save(target, np.array([Exploit()], dtype=object), allow_pickle=True)
    return target.getvalue()


TENSORS = {
    "pickle": (zipped(("image.npy", pickled())), "pickle"),
    "negative shape": (zipped(("image.npy", npy("(-224, 224, -4)"))), "expected a"),
    "huge shape": (zipped(("image.npy", npy("(99999999999999999999, 4)"))), "expected a"),
    "calculated shape": (zipped(("image.npy", npy("(2**40, 224, 4)"))), "damaged"),
    "Fortran order": (zipped(("image.npy", npy(order="True"))), "expected a"),
    "signed": (zipped(("image.npy", npy(kind="'|i1'"))), "expected a"),
    "structured": (zipped(("image.npy", npy(kind="[('a', '|u1')]"))), "expected a"),
    "code for a header": (zipped(("image.npy", npy(kind="__import__('os').mkdir('exploited')"))), "damaged"),
    "header of 1 GB": (zipped(("image.npy", b"\x93NUMPY\2\0" + struct.pack("<I", 1 << 30) + PIXELS)), "version"),
    "header past the end": (zipped(("image.npy", b"\x93NUMPY\1\0\xff\xff" + bytes(9))), "damaged"),
    "too short": (zipped(("image.npy", npy(body=PIXELS[:-1]))), "200703 bytes"),
    "bomb": (zipped(("image.npy", npy(body=bytes(64 << 20)))), "declares more data"),
    "two members": (zipped(("image.npy", npy()), ("b.npy", b"")), "the one array"),
    "a path": (zipped(("../image.npy", npy())), "the one array"),
    "many members": (zipped(*((str(number), b"") for number in range(1500))), "the one array"),
    "LZMA": (zipped(("image.npy", npy()), method=zipfile.ZIP_LZMA), "compressed in a way"),
    "nested": (zipped(("image.npy", zipped(("image.npy", npy())))), "damaged"),
    "gzip": (gzip.compress(npz_bytes(TENSOR)), "damaged"),
    "empty": (b"", "damaged"),
}


@pytest.mark.parametrize("name", TENSORS)
def test_a_tensor_file_that_lies_is_refused_and_runs_nothing(name, tmp_path, monkeypatch) -> None:
    data, reason = TENSORS[name]
    monkeypatch.chdir(tmp_path)
    tracemalloc.start()
    with pytest.raises(NpzError, match=reason):
        load_npz(data)
    assert tracemalloc.get_traced_memory()[1] < 4 << 20
    tracemalloc.stop()
    with pytest.raises(BadRequest):
        input_fn(data, "application/x-npz")
    assert not (tmp_path / "exploited").exists()


def test_a_tensor_file_that_declares_a_tensors_size_and_inflates_to_more_is_refused() -> None:
    honest, lying = npy(), npy(body=PIXELS + bytes(2 << 20))
    data = zipped(("image.npy", lying)).replace(struct.pack("<I", len(lying)), struct.pack("<I", len(honest)))
    with pytest.raises(NpzError):
        load_npz(data)


def safetensors(header: bytes, length: int | None = None, body: bytes = bytes(16)) -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header + body


def entry(shape: list[int], offsets: list[int], kind: str = "F32") -> dict:
    return {"dtype": kind, "shape": shape, "data_offsets": offsets}


LIES = {
    "huge header": safetensors(b"{}", 1 << 30),
    "header past the end": safetensors(b"{}", 100),
    "offsets outside": safetensors(json.dumps({"a": entry([4], [0, 1 << 40])}).encode()),
    "overlap": safetensors(json.dumps({"a": entry([4], [0, 16]), "b": entry([4], [0, 16])}).encode()),
    "huge shape": safetensors(json.dumps({"a": entry([1 << 62, 8], [0, 16])}).encode()),
    "negative shape": safetensors(json.dumps({"a": entry([-4], [0, 16])}).encode()),
    "a crowd of nothing": safetensors(
        json.dumps({str(n): entry([0], [0, 0]) for n in range(30_000)}).encode(), body=b""
    ),
    "deep": safetensors(b"[" * 100_000),
    "pickle": b"\x80\x02}q\x00.",
}


@pytest.mark.parametrize("name", LIES)
def test_weights_whose_header_lies_are_refused_by_name(name: str, tmp_path: Path) -> None:
    (tmp_path / "own.safetensors").write_bytes(LIES[name])
    with pytest.raises(ModelError, match=r"own\.safetensors cannot be read"):
        read_weights(tmp_path / "own.safetensors")
    with pytest.raises(WeightsError, match=r"own\.safetensors: expected a safetensors file"):
        parse_weights(LIES[name], "own.safetensors")


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin"])
def test_a_pickle_is_refused_by_name_before_a_job_is_paid_for(suffix, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"conv1.weight": Exploit()}, f"w{suffix}")
    with pytest.raises(ModelError, match=rf"w\{suffix}: only \.safetensors is read"):
        read_weights(Path(f"w{suffix}"))
    with pytest.raises(ConfigError, match=r"pretrained: .*a pickle can run code"):
        TrainConfig.parse({"pretrained": f"s3://bucket/w{suffix}"})
    with pytest.raises(WeightsError, match=rf"w\{suffix}: expected a safetensors file"):
        parse_weights(Path(f"w{suffix}").read_bytes(), f"w{suffix}")
    assert not (tmp_path / "exploited").exists()
    assert TrainConfig.parse({"pretrained": "s3://bucket/w.safetensors"})
