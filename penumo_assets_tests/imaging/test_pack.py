import io
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penumo_assets.imaging.npz_writer import npz_bytes
from penumo_assets.imaging.pack import NpzError, load_npz, pack_tensor


def tensor(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (224, 224, 3), dtype=np.uint8)
    return pack_tensor(image, rng.integers(0, 2, (224, 224), dtype=np.uint8) * np.uint8(255))


def archive(members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return buffer.getvalue()


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array)
    return buffer.getvalue()


def test_the_channels_are_red_green_blue_mask() -> None:
    image = np.zeros((224, 224, 3), np.uint8)
    image[:] = (1, 2, 3)
    mask = np.full((224, 224), 255, np.uint8)
    assert pack_tensor(image, mask)[5, 7].tolist() == [1, 2, 3, 255]


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        (np.zeros((224, 224), np.uint8), np.zeros((224, 224), np.uint8)),
        (np.zeros((224, 224, 3), np.float32), np.zeros((224, 224), np.uint8)),
        (np.zeros((224, 224, 3), np.uint8), np.zeros((224, 224), bool)),
        (np.zeros((224, 224, 3), np.uint8), np.zeros((224, 225), np.uint8)),
        (np.zeros((224, 224, 3), np.uint8), np.ones((224, 224), np.uint8)),
    ],
)
def test_other_shapes_types_and_mask_values_are_refused(image: np.ndarray, mask: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"mask|image"):
        pack_tensor(image, mask)


def test_numpy_reads_what_is_written_without_pickle() -> None:
    with np.load(io.BytesIO(npz_bytes(tensor())), allow_pickle=False) as file:
        assert file.files == ["image"]
        assert np.array_equal(file["image"], tensor())


def test_what_numpy_writes_is_read() -> None:
    for save in (np.savez, np.savez_compressed):
        buffer = io.BytesIO()
        save(buffer, image=tensor())
        assert np.array_equal(load_npz(buffer.getvalue()), tensor())


def test_equal_tensors_give_equal_bytes_without_a_clock() -> None:
    assert npz_bytes(tensor()) == npz_bytes(tensor().copy())
    info = zipfile.ZipFile(io.BytesIO(npz_bytes(tensor()))).infolist()[0]
    assert info.date_time == (1980, 1, 1, 0, 0, 0)


def test_a_file_is_read_by_its_path(tmp_path: Path) -> None:
    path = tmp_path / "p-1.npz"
    path.write_bytes(npz_bytes(tensor()))
    loaded = load_npz(path)
    assert np.array_equal(loaded, tensor())
    assert loaded.flags.writeable


@pytest.mark.parametrize("bad", [np.zeros((224, 224, 3), np.uint8), np.zeros((224, 224, 4), np.int16)])
def test_only_the_contracts_tensor_is_written(bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match="expected"):
        npz_bytes(bad)


class Bomb:
    def __reduce__(self) -> tuple:
        return (pytest.fail, ("a pickle was loaded",))


def pickled() -> bytes:
    header = npy(np.zeros((224, 224, 4), np.uint8))[:10]
    text = "{'descr': '|O', 'fortran_order': False, 'shape': (224, 224, 4), }".ljust(117) + "\n"
    return header[:8] + struct.pack("<H", len(text)) + text.encode() + pickle.dumps(Bomb())


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "damaged"),
        (b"not a zip at all", "damaged"),
        (archive({"image.npy": npy(tensor())[:-1]}), "bytes"),
        (archive({"image.npy": npy(tensor()) + b"\0"}), "bytes"),
        (archive({"picture.npy": npy(tensor())}), "one array 'image'"),
        (archive({"image.npy": npy(tensor()), "more.npy": b""}), "one array 'image'"),
        (archive({}), "one array 'image'"),
        (archive({"image.npy": npy(np.zeros((224, 224, 3), np.uint8))}), "expected"),
        (archive({"image.npy": npy(np.zeros((224, 112, 4), np.uint16))}), "expected"),
        (archive({"image.npy": npy(np.zeros((224, 224, 4), np.int8))}), "expected"),
        (archive({"image.npy": npy(np.asfortranarray(tensor()))}), "expected"),
        (archive({"image.npy": pickled()}), "pickle"),
        (archive({"image.npy": pickle.dumps(Bomb())}), "damaged"),
        (archive({"image.npy": npy(tensor())}, zipfile.ZIP_BZIP2), "compressed in a way"),
        (archive({"image.npy": bytes(50_000_000)}), "more data than a tensor"),
        (npz_bytes(tensor())[:-30], "damaged"),
        (npz_bytes(tensor()) + bytes(300_000), "more than a tensor can need"),
    ],
)
def test_anything_else_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(NpzError, match=message):
        load_npz(data)


def test_an_archive_that_lies_about_its_size_is_refused() -> None:
    data = archive({"image.npy": npy(tensor(0)) + bytes(40_000_000)})
    lie = struct.pack("<I", len(npy(tensor())))
    real = struct.pack("<I", len(npy(tensor())) + 40_000_000)
    with pytest.raises(NpzError):
        load_npz(data.replace(real, lie))


def test_a_large_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "big.npz"
    with path.open("wb") as file:
        file.truncate(10**12)
    with pytest.raises(NpzError, match="more than a tensor can need"):
        load_npz(path)


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_npz(tmp_path / "none.npz")


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_damaged_archive_is_refused_or_whole(data: st.DataObject) -> None:
    damaged = bytearray(npz_bytes(np.zeros((224, 224, 4), np.uint8)))
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        loaded = load_npz(bytes(damaged))
    except NpzError:
        return
    assert not loaded.any()
