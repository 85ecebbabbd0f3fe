import hashlib
import io
import struct
import time
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo

from penumo_assets.configs.prepare import DecodeConfig
from penumo_assets.imaging.decode import decode_image, decode_png, encode_png
from penumo_assets.imaging.errors import ImageRejected
from penumo_assets.imaging.formats.png_chunks import read_parts
from penumo_assets_tests.imaging.samples import jpeg_bytes, phantom, png_bytes

CONFIG = DecodeConfig()
COLOUR = DecodeConfig(keep_colour=True)
GRAY = phantom(48, 40, 8).astype(np.uint8)
ADAM7 = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
RGB = np.dstack((GRAY, GRAY // 2, 255 - GRAY))


def code(data: bytes, config: DecodeConfig = CONFIG) -> str:
    with pytest.raises(ImageRejected) as error:
        decode_image(data, config)
    return error.value.code


def luminance(rgb: np.ndarray) -> np.ndarray:
    return rgb.astype(float) @ np.array([0.299, 0.587, 0.114])


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_of(header: bytes, *chunks: bytes) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(chunks) + chunk(b"IEND", b"")


# --- PNG ---------------------------------------------------------------------------------------------


def test_an_eight_bit_png_is_read_as_it_is() -> None:
    image = decode_image(png_bytes(GRAY), CONFIG)
    assert np.array_equal(image.pixels, GRAY)
    assert (image.format, image.bits, image.pixels.dtype, image.patient_id) == ("png", 8, np.uint8, None)


def test_a_sixteen_bit_png_keeps_its_depth() -> None:
    deep = phantom(48, 40, 16)
    image = decode_image(cv2.imencode(".png", deep)[1].tobytes(), CONFIG)
    assert np.array_equal(image.pixels, deep)
    assert (image.bits, image.pixels.dtype) == (16, np.uint16)


def test_twelve_bits_in_a_sixteen_bit_png_are_shifted_up_without_loss() -> None:
    shallow = phantom(48, 40, 12)
    image = decode_image(cv2.imencode(".png", shallow)[1].tobytes(), CONFIG)
    assert np.array_equal(image.pixels >> 4, shallow)
    assert image.bits == 12
    assert image.notes == ("depth:12",)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_gray_below_eight_bits_is_spread_over_the_range(bits: int) -> None:
    levels = (GRAY >> (8 - bits)).astype(np.uint8)
    rows = b"".join(b"\0" + _packed(row, bits) for row in levels)
    header = struct.pack(">IIBBBBB", 40, 48, bits, 0, 0, 0, 0)
    image = decode_image(png_of(header, chunk(b"IDAT", zlib.compress(rows))), CONFIG)
    assert np.array_equal(image.pixels, levels * (255 // (2**bits - 1)))
    assert image.bits == bits


def _packed(row: np.ndarray, bits: int) -> bytes:
    return np.packbits(np.unpackbits(row[:, None], axis=1)[:, 8 - bits :].reshape(-1)).tobytes()


def test_colour_becomes_luminance_unless_it_is_kept() -> None:
    assert np.abs(decode_image(png_bytes(RGB), CONFIG).pixels - luminance(RGB)).max() <= 1
    assert np.array_equal(decode_image(png_bytes(RGB), COLOUR).pixels, RGB)


def test_gray_stored_as_colour_is_gray_even_where_colour_is_kept() -> None:
    assert np.array_equal(decode_image(png_bytes(np.dstack((GRAY,) * 3)), COLOUR).pixels, GRAY)


def test_a_palette_is_resolved() -> None:
    image = Image.fromarray(GRAY).quantize(32)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    expected = luminance(np.asarray(image.convert("RGB")))
    assert np.abs(decode_image(buffer.getvalue(), CONFIG).pixels - expected).max() <= 1


def test_a_transparent_palette_entry_is_black() -> None:
    image = Image.fromarray(GRAY).quantize(32)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", transparency=3)
    expected = luminance(np.asarray(image.convert("RGB")))
    expected[np.asarray(image) == 3] = 0
    assert np.abs(decode_image(buffer.getvalue(), CONFIG).pixels - expected).max() <= 1


@pytest.mark.parametrize("colour", [True, False])
def test_alpha_is_laid_over_black(colour: bool) -> None:
    alpha = np.tile(np.linspace(0, 255, 40).astype(np.uint8), (48, 1))
    picture = np.dstack((RGB, alpha)) if colour else np.dstack((GRAY, alpha))
    expected = (luminance(RGB) if colour else GRAY) * (alpha / 255)
    assert np.abs(decode_image(png_bytes(picture), CONFIG).pixels - expected).max() <= 1.5


def test_opaque_alpha_changes_nothing() -> None:
    picture = np.dstack((RGB, np.full_like(GRAY, 255)))
    assert np.array_equal(decode_image(png_bytes(picture), COLOUR).pixels, RGB)


def test_sixteen_bit_colour_with_alpha_keeps_its_depth() -> None:
    deep = phantom(48, 40, 16)
    picture = np.dstack((deep, deep, deep, np.full_like(deep, 65535)))
    image = decode_image(cv2.imencode(".png", picture)[1].tobytes(), CONFIG)
    assert np.abs(image.pixels.astype(int) - deep).max() <= 1


def test_an_interlaced_png_is_read() -> None:
    rows = b"".join(
        b"\0" + GRAY[top::down, left::right][row].tobytes()
        for top, left, down, right in ADAM7
        for row in range(len(GRAY[top::down]))
    )
    header = struct.pack(">IIBBBBB", 40, 48, 8, 0, 0, 0, 1)
    image = decode_image(png_of(header, chunk(b"IDAT", zlib.compress(rows))), CONFIG)
    assert np.array_equal(image.pixels, GRAY)


def test_an_animated_png_is_refused() -> None:
    buffer = io.BytesIO()
    Image.fromarray(GRAY).save(buffer, "PNG", save_all=True, append_images=[Image.fromarray(255 - GRAY)])
    assert code(buffer.getvalue()) == "multi_frame"


def test_a_png_whose_picture_data_is_short_is_refused_though_its_chunks_are_whole() -> None:
    header = struct.pack(">IIBBBBB", 40, 48, 8, 0, 0, 0, 0)
    filtered = b"".join(b"\2" + row.tobytes() for row in GRAY[:-1])
    assert code(png_of(header, chunk(b"IDAT", zlib.compress(filtered)))) == "truncated"
    half = zlib.compress(filtered)[:-200]
    assert code(png_of(header, chunk(b"IDAT", half[:50]), chunk(b"IDAT", half[50:]))) in ("corrupt", "truncated")


def test_what_a_png_holds_beyond_its_declared_size_is_never_inflated() -> None:
    header = struct.pack(">IIBBBBB", 40, 48, 8, 0, 0, 0, 0)
    deflater = zlib.compressobj()
    data = deflater.compress(b"".join(b"\0" + row.tobytes() for row in GRAY))
    data += b"".join(deflater.compress(bytes(10**7)) for _ in range(50)) + deflater.flush()
    started = time.process_time()
    image = decode_image(png_of(header, chunk(b"IDAT", data)), CONFIG)
    assert time.process_time() - started < 0.1, "500 MB of zeros take longer to inflate"
    assert np.array_equal(image.pixels, GRAY)


def test_a_damaged_checksum_is_refused() -> None:
    data = bytearray(png_bytes(GRAY))
    data[len(data) // 2] ^= 1
    assert code(bytes(data)) == "corrupt"


def test_text_in_a_png_does_not_reach_what_is_stored() -> None:
    info = PngInfo()
    info.add_text("Comment", "DOE^JANE", zip=True)
    image = decode_image(png_bytes(GRAY, pnginfo=info), CONFIG)
    stored = encode_png(image.pixels)
    assert b"DOE" not in stored
    assert [kind for kind in (b"tEXt", b"zTXt", b"iTXt", b"eXIf", b"tIME") if kind in stored] == []


# --- our own PNG -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (37, 53), (37, 53, 3)])
def test_a_written_png_is_read_back_by_us_and_by_others(dtype: type, shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(0).integers(0, np.iinfo(dtype).max + 1, shape).astype(dtype)
    data = encode_png(pixels)
    back = decode_png(data)
    assert np.array_equal(back, pixels)
    assert back.dtype == dtype
    theirs = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(theirs if len(shape) == 2 else theirs[..., ::-1], pixels)
    assert Image.open(io.BytesIO(data)).size == (shape[1], shape[0])


def test_any_filter_is_read() -> None:
    for strategy in (8, 16, 32, 64, 128):
        data = cv2.imencode(".png", GRAY, [cv2.IMWRITE_PNG_FILTER, strategy])[1].tobytes()
        assert np.array_equal(decode_png(data), GRAY)


def test_a_picture_has_the_same_bytes_in_every_process_and_everywhere() -> None:
    """The digest is written down, because an encoder may differ once in thousands of processes: another one shows here.

    If this fails after an upgrade of libdeflate, stored pictures are still good: write the new digest down.
    """
    picture = (np.outer(np.arange(200), np.arange(300)) % 251).astype(np.uint8)
    assert (
        hashlib.sha256(encode_png(picture)).hexdigest()
        == "9f8b1cabb3af8f880860c130070470c3c5fed58cf512c1d71ea32aa7199734a0"
    )


def test_a_deep_picture_is_read_by_a_program_that_keeps_no_more_than_the_declared_window() -> None:
    picture = np.tile(np.random.default_rng(0).integers(0, 1 << 16, (20, 300), dtype=np.uint16), (3, 2))
    data = b"".join(body for kind, body in read_parts(encode_png(picture)).critical if kind == b"IDAT")
    inflater, pending, rows = zlib.decompressobj(8 + (data[0] >> 4)), data, b""
    while not inflater.eof:
        rows += inflater.decompress(pending, 100)
        pending = inflater.unconsumed_tail
    assert rows == zlib.decompress(data)


def test_a_picture_that_is_not_contiguous_is_written() -> None:
    assert np.array_equal(decode_png(encode_png(GRAY.T[::-1])), GRAY.T[::-1])


@pytest.mark.parametrize(
    "bad", [np.zeros((4, 4), np.float32), np.zeros((4, 4, 4), np.uint8), np.zeros((0, 4), np.uint8)]
)
def test_what_is_no_picture_is_not_written(bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"PNG holds|expected"):
        encode_png(bad)


def test_a_cut_off_stored_png_is_refused() -> None:
    with pytest.raises(ImageRejected, match="cut off"):
        decode_png(encode_png(GRAY)[:-20])
    with pytest.raises(ImageRejected, match="expected a PNG"):
        decode_png(b"text")


# --- JPEG --------------------------------------------------------------------------------------------


def test_a_gray_jpeg_is_what_other_readers_see() -> None:
    data = jpeg_bytes(GRAY)
    image = decode_image(data, CONFIG)
    assert np.array_equal(image.pixels, np.asarray(Image.open(io.BytesIO(data))))
    assert (image.format, image.bits, image.notes) == ("jpeg", 8, ())


def test_a_progressive_jpeg_is_read() -> None:
    assert np.abs(decode_image(jpeg_bytes(GRAY, progressive=True), CONFIG).pixels.astype(int) - GRAY).mean() < 2


def test_a_colour_jpeg_becomes_luminance_unless_colour_is_kept() -> None:
    data = jpeg_bytes(RGB, subsampling=0)
    seen = np.asarray(Image.open(io.BytesIO(data)))
    assert np.abs(decode_image(data, CONFIG).pixels - luminance(seen)).max() <= 3
    assert np.array_equal(decode_image(data, COLOUR).pixels, seen)


def test_gray_stored_as_a_colour_jpeg_is_gray_even_where_colour_is_kept() -> None:
    assert decode_image(jpeg_bytes(np.dstack((GRAY,) * 3)), COLOUR).pixels.ndim == 2


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_jpeg_is_turned_upright_as_its_exif_block_says(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = jpeg_bytes(GRAY, exif=exif)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    assert np.array_equal(decode_image(data, CONFIG).pixels, upright)


def test_a_cmyk_jpeg_is_refused() -> None:
    buffer = io.BytesIO()
    Image.fromarray(RGB).convert("CMYK").save(buffer, "JPEG")
    assert code(buffer.getvalue()) == "unsupported_colour"


def test_a_jpeg_cut_off_anywhere_is_refused() -> None:
    data = jpeg_bytes(GRAY)
    assert {code(data[:length]) for length in range(3, len(data))} == {"truncated"}


def test_a_jpeg_cut_off_and_closed_again_is_refused() -> None:
    data = jpeg_bytes(phantom(256, 256, 8).astype(np.uint8))
    for share in (0.3, 0.6, 0.9):
        assert code(data[: int(len(data) * share)] + b"\xff\xd9") == "corrupt"


def test_a_jpeg_with_rubbish_behind_its_end_is_read() -> None:
    assert np.array_equal(
        decode_image(jpeg_bytes(GRAY) + b"\0" * 100, CONFIG).pixels, decode_image(jpeg_bytes(GRAY), CONFIG).pixels
    )


def test_a_jpeg_of_many_scans_is_refused_as_a_bomb() -> None:
    # A 60-megapixel progressive image whose 20-byte scans would each cost a pass over all of it.
    frame = b"\xff\xc2\x00\x0b\x08" + struct.pack(">HH", 7000, 8000) + b"\x01\x01\x11\x00"
    scan = b"\xff\xda\x00\x08\x01\x01\x00\x00\x00\x00\x00"
    with pytest.raises(ImageRejected, match="more scans"):
        decode_image(b"\xff\xd8" + frame + scan * 1000 + b"\xff\xd9", CONFIG)


# --- both --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encode", [png_bytes, jpeg_bytes])
def test_a_constant_image_is_refused(encode) -> None:
    assert code(encode(np.zeros((64, 64), np.uint8))) == "constant_image"
    assert code(encode(np.full((64, 64), 128, np.uint8))) == "constant_image"


def test_one_pixel_that_differs_makes_a_picture() -> None:
    pixels = np.zeros((64, 64), np.uint8)
    pixels[3, 3] = 1
    assert decode_image(png_bytes(pixels), CONFIG).pixels.sum() == 1


@pytest.mark.parametrize("encode", [png_bytes, jpeg_bytes])
def test_a_small_image_is_refused_and_the_limit_can_be_moved(encode) -> None:
    small = GRAY[:31]
    assert code(encode(small)) == "too_small"
    assert decode_image(encode(small), DecodeConfig(min_side=31)).pixels.shape == (31, 40)


def test_a_declared_size_is_refused_before_anything_is_allocated(peak_memory) -> None:
    header = struct.pack(">IIBBBBB", 60000, 60000, 16, 6, 0, 0, 0)
    png = png_of(header, chunk(b"IDAT", zlib.compress(bytes(100))))
    jpeg = bytearray(jpeg_bytes(GRAY))
    at = jpeg.index(b"\xff\xc0") + 5
    jpeg[at : at + 4] = b"\xff\xff\xff\xff"
    assert code(png) == "too_large"
    assert code(bytes(jpeg)) == "too_large"
    assert peak_memory() < 20


def test_sixteen_bit_colour_is_refused_at_a_size_that_eight_bit_gray_may_have() -> None:
    config = DecodeConfig(max_megapixels=1)
    body = chunk(b"IDAT", zlib.compress(bytes(10)))
    assert code(png_of(struct.pack(">IIBBBBB", 900, 900, 16, 6, 0, 0, 0), body), config) == "too_large"
    assert code(png_of(struct.pack(">IIBBBBB", 900, 900, 8, 0, 0, 0, 0), body), config) != "too_large"


def test_a_compressed_text_bomb_in_a_png_is_never_inflated(peak_memory) -> None:
    deflate, zeros = zlib.compressobj(1), bytes(1_000_000)
    text = b"".join(deflate.compress(zeros) for _ in range(200)) + deflate.flush()
    bomb = chunk(b"zTXt", b"Comment\0\0" + text)
    data = png_bytes(GRAY)
    assert np.array_equal(decode_image(data[:33] + bomb + data[33:], CONFIG).pixels, GRAY)
    assert peak_memory() < 50
