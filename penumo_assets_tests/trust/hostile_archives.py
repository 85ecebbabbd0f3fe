"""Archives that explode, lead outside, or say two things at once."""

import gzip
import io
import tarfile
import zipfile
from typing import Any

MANY = {f"{number:x}": "" for number in range(900)}
METADATA = b'{"schema": "penumo/model/1"}'


def tar_gz(*members: tuple[str, bytes | None, dict[str, Any]]) -> bytes:
    """A tar.gz of (name, content or None, further fields of the header)."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w:gz", format=tarfile.PAX_FORMAT) as archive:
        for name, data, fields in (("metadata.json", METADATA, {}), *members):
            member = tarfile.TarInfo(name)
            member.size = len(data or b"")
            for field, value in fields.items():
                setattr(member, field, value)
            archive.addfile(member, io.BytesIO(data) if data is not None else None)
    return target.getvalue()


def headed(kind: bytes, size: int, mebibytes: int = 0, name: str = "metadata.json") -> bytes:
    """A header that declares ``size`` bytes, so many mebibytes of ``a``, and a good archive behind them."""
    member = tarfile.TarInfo(name)
    member.type, member.size = kind, size
    target = io.BytesIO()
    with gzip.GzipFile(fileobj=target, mode="wb", compresslevel=1) as zipped:
        zipped.write(member.tobuf(tarfile.GNU_FORMAT))
        for _ in range(mebibytes):
            zipped.write(b"a" * (1 << 20))
        zipped.write(gzip.decompress(tar_gz()))
    return target.getvalue()


def attributed(attributes: dict[str, str], data: bytes = b"", *, members: int = 1) -> bytes:
    """Members with these attributes and 512 bytes by their headers, ``data`` in their place, a good archive behind."""
    raw = b""
    for number in range(members):
        member = tarfile.TarInfo(f"{number}.safetensors")
        member.size, member.pax_headers = 512, attributes
        raw += member.tobuf(tarfile.PAX_FORMAT) + data.ljust(512, b"\0")
    return gzip.compress(raw + gzip.decompress(tar_gz()))


def sparse(data: bytes = b"", **attributes: str) -> bytes:
    return attributed({f"GNU.sparse.{name}": value for name, value in attributes.items()}, data)


def for_all(attributes: dict[str, str]) -> bytes:
    return gzip.compress(tarfile.TarInfo.create_pax_global_header(attributes) + gzip.decompress(tar_gz()))


def bomb(mebibytes: int) -> bytes:
    return headed(tarfile.REGTYPE, mebibytes << 20, mebibytes, name="model.safetensors")


def archives() -> dict[str, tuple[bytes, str]]:
    """tar.gz files that are not unpacked, and what the refusal says."""
    outside, link = "leads outside", "a link or a device"
    long = "impossible length"
    return {
        "parent": (tar_gz(("../evil", b"x", {})), outside),
        "absolute": (tar_gz(("/tmp/evil", b"x", {})), outside),
        "backslash": (tar_gz(("..\\evil", b"x", {})), outside),
        "symlink": (tar_gz(("l", None, {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"})), link),
        "hard link": (tar_gz(("l", None, {"type": tarfile.LNKTYPE, "linkname": "metadata.json"})), link),
        "pipe": (tar_gz(("f", None, {"type": tarfile.FIFOTYPE})), link),
        "device": (tar_gz(("d", None, {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3})), link),
        "twice": (tar_gz(("metadata.json", b"{}", {})), "a name twice"),
        "twice, differently": (tar_gz(("./metadata.json", b"{}", {})), "a name twice"),
        "twice but for case": (tar_gz(("Metadata.JSON", b"{}", {})), "a name twice"),
        "two of a depth": (_two(), "more than one metadata.json"),
        "control characters": (tar_gz(("a\n\x1b[31m", b"x", {})), "not allowed"),
        "turned": (tar_gz(("\u202egnp.exe", b"x", {})), "not allowed"),
        "deep": (tar_gz(("a/" * 3000 + "b", b"x", {})), "not allowed|RecursionError"),
        "long name": (tar_gz(("a" * 5000, b"x", {})), "not allowed"),
        "attributes bomb": (headed(tarfile.XHDTYPE, 96 << 20, 96), long),
        "attributes beyond need": (headed(tarfile.XHDTYPE, 9 << 10, 1), long),
        "name bomb": (headed(tarfile.GNUTYPE_LONGNAME, 96 << 20, 96), long),
        "link name bomb": (headed(tarfile.GNUTYPE_LONGLINK, 96 << 20, 96), long),
        "a name for a name for a name": (_chain(3000), "RecursionError"),
        "sparse": (headed(tarfile.GNUTYPE_SPARSE, 512), "not read"),
        "sparse 0.0": (sparse(size="10"), "not read"),
        "sparse 0.1": (sparse(map=f"0,{64 << 20}", size="10"), "not read"),
        "sparse 1.0": (sparse(b"524287\n" + b"0\n" * (1 << 19), major="1", minor="0", realsize="10"), "not read"),
        "sparse by no numbers": (sparse(map="a,b"), "not read"),
        "size by no number": (sparse(realsize="a"), "cannot be unpacked: ValueError"),
        "attributes for all": (for_all({"comment": "x"}), "not read"),
        "negative by attribute": (attributed({"size": "-1024"}), "not read"),
        "crowd of attributes": (attributed(MANY, members=200)[:-100], "cannot be unpacked"),
        "negative": (headed(tarfile.REGTYPE, -1), "not read|cannot be unpacked"),
        "declares a petabyte": (headed(tarfile.REGTYPE, 1 << 50), "larger than"),
        "bomb": (bomb(96), "larger than"),
        "crowd": (tar_gz(*((str(number), b"", {}) for number in range(1200))), "larger than"),
        "cut off": (tar_gz()[:60], "cannot be unpacked"),
        "no archive": (b"hello", "cannot be unpacked"),
        "nested": (gzip.compress(tar_gz()), "cannot be unpacked"),
        "empty": (b"", "cannot be unpacked"),
    }


def _chain(links: int) -> bytes:
    """Headers that each hold the name of the next, which is such a header again."""
    member = tarfile.TarInfo("x")
    member.type, member.size = tarfile.GNUTYPE_LONGNAME, 1
    return gzip.compress((member.tobuf(tarfile.GNU_FORMAT) + b"a".ljust(512, b"\0")) * links)


def _two() -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w:gz") as archive:
        for name in ("a/metadata.json", "b/metadata.json"):
            member = tarfile.TarInfo(name)
            member.size = len(METADATA)
            archive.addfile(member, io.BytesIO(METADATA))
    return target.getvalue()


def zipped(*members: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", method) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return target.getvalue()
