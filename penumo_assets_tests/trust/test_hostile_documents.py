"""YAML and JSON that somebody hands over: no objects, no explosions, no repeated keys, numbers that are numbers."""

import json
import tracemalloc
from pathlib import Path

import pytest

from penumo_assets.cohort.watch.inbox import UnreadableMessage, parse_message
from penumo_assets.configs.base import ConfigError, StrictModel
from penumo_assets.configs.documents import MAX_CHARACTERS, DocumentError, _once, parse_json, parse_yaml
from penumo_assets.configs.prepare import PrepareConfig
from penumo_assets.configs.search import SearchConfig
from penumo_assets.jobs.contract import JobError
from penumo_assets.jobs.evaluate.inputs import read_context
from penumo_assets.jobs.infer.handler import model_fn
from penumo_assets.jobs.manifest import ManifestError, load_rows
from penumo_assets.models.classifier import load_classifier
from penumo_assets.models.errors import ModelError

pytestmark = pytest.mark.trust

LAUGHS = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12))
YAML = {
    "an object": (
        "decode: !!python/object/apply:os.mkdir [exploited]",
        "the tag '!!python/object/apply:os.mkdir' is not read",
    ),
    "a name": ("decode: !!python/name:os.system", "the tag '!!python/name:os.system'"),
    "a tag that names no truth": ("a: 1\ndecode: !!bool x", "the tag '!!bool' is not read in line 2"),
    "a tag that names no number": ('decode: !!int ""', "the tag '!!int'"),
    "a tag that names no time": ("decode: !!timestamp x", "the tag '!!timestamp'"),
    "bytes": ("decode: !!binary aGVsbG8=", "the tag '!!binary'"),
    "a set": ("decode: !!set {min_side}", "the tag '!!set'"),
    "a tag of one's own": ("decode: !own x", "the tag '!own'"),
    "a tag of a key": ("!!str decode: {}", "the tag '!!str'"),
    "no kind at all": ("decode: ! x", "the tag '!'"),
    "a sum of sixtieths": (f"decode: 1:{'0:' * 200}0.5", "a number is too long in line 1"),
    "sixtieths without end": (f"decode: 1:{'0:' * 100_000}0", "a number is too long"),
    "a long number": (f"decode: 0x{'f' * 100_000}", "a number is too long"),
    "laughs": (LAUGHS, r"an alias \(\*name\) is not read in line 2"),
    "a circle": ("a: &a [*a]", "an alias"),
    "a merge": ("decode: {<<: {min_side: 1}}", "a merge"),
    "a key twice": ("decode: {min_side: 1, min_side: 2}", "a key repeats: 'min_side' in line 1"),
    "a section twice": ("npz: {}\nnpz: {filename: x}", "a key repeats: 'npz' in line 2"),
    "depth": ("[" * 200_000, "more than 32 levels deep"),
    "length": ("# " + "x" * (1 << 20), f"longer than {MAX_CHARACTERS}"),
    "a key that is a list": ("? [a, b]\n: c", "unhashable"),
    "two documents": ("a: 1\n---\na: 2", "another document"),
    "control characters": ("a: \x00", "cannot be read"),
    "no YAML": ("a: [", "line"),
}
JSON = {
    "depth": "[" * 200_000,
    "a key twice": '{"a": 1, "a": 2}',
    "an inner key twice": '[{"b": {"a": 1, "a": 2}}]',
    "no number": '{"a": NaN}',
    "infinity": '{"a": -Infinity}',
    "a huge number": '{"a": 1e999}',
    "a long number": '{"a": ' + "9" * 5000 + "}",
    "length": '"' + "x" * (1 << 20) + '"',
    "half a character": b'{"a": "\xff"}',
    "no JSON": "{'a': 1}",
}


@pytest.mark.parametrize("name", YAML)
def test_yaml_that_makes_objects_or_explodes_or_says_two_things_is_refused(name, tmp_path, monkeypatch) -> None:
    text, reason = YAML[name]
    monkeypatch.chdir(tmp_path)
    Path("prepare_config.yaml").write_text(text, encoding="utf-8")
    tracemalloc.start()
    with pytest.raises(ConfigError, match=rf"prepare_config\.yaml is not valid YAML: .*({reason})"):
        PrepareConfig.from_yaml(Path("prepare_config.yaml"))
    assert tracemalloc.get_traced_memory()[1] < 32 << 20
    tracemalloc.stop()
    with pytest.raises(ConfigError, match="search space is not valid YAML"):
        SearchConfig(space=text).search_space()
    assert not Path("exploited").exists()


def test_a_yaml_file_of_gigabytes_is_not_read_to_its_end(tmp_path: Path) -> None:
    with (tmp_path / "own.yaml").open("wb") as file:
        file.truncate(4 << 30)
    tracemalloc.start()
    with pytest.raises(ConfigError, match=r"own\.yaml is not valid YAML: it is longer"):
        PrepareConfig.from_yaml(tmp_path / "own.yaml")
    assert tracemalloc.get_traced_memory()[1] < 4 << 20
    tracemalloc.stop()


class Share(StrictModel):
    """A setting without bounds."""

    share: float = 0.5


@pytest.mark.parametrize("value", [".inf", "-.inf", ".nan", "1.0e+999"])
def test_a_setting_is_a_number_even_where_it_has_no_bounds(value: str) -> None:
    with pytest.raises(ConfigError, match="share: Input should be a finite number"):
        Share.parse(parse_yaml(f"share: {value}"))


def test_plain_yaml_is_read_as_before() -> None:
    assert parse_yaml("a: {b: [1, 2.5, yes, null, 'x']}") == {"a": {"b": [1, 2.5, True, None, "x"]}}
    assert parse_json('{"a": [1, 2.5, true, null, "x"]}') == {"a": [1, 2.5, True, None, "x"]}


def test_a_key_that_repeats_in_a_long_object_is_found_in_one_pass() -> None:
    count, compared = 20_000, 0

    class Counted(str):
        def __eq__(self, other: object) -> bool:
            nonlocal compared
            compared += 1
            return str.__eq__(self, other)

        __hash__ = str.__hash__

    pairs = [(Counted(f"k{number}"), 1) for number in range(count)]
    with pytest.raises(DocumentError, match="the key 'k19999' repeats"):
        _once([*pairs, (Counted("k19999"), 2)])
    assert compared < 4 * count


@pytest.mark.parametrize("name", JSON)
def test_json_that_is_deep_or_says_two_things_is_refused(name: str, tmp_path: Path) -> None:
    text = JSON[name]
    data = text if isinstance(text, bytes) else text.encode()
    with pytest.raises(DocumentError):
        parse_json(data)
    (tmp_path / "model.safetensors").write_bytes(b"")
    (tmp_path / "metadata.json").write_bytes(data)
    with pytest.raises(ModelError, match=r"metadata\.json is not valid"):
        load_classifier(tmp_path)
    if name != "length":  # as long as the data sets' counts make it
        (tmp_path / "context.json").write_bytes(data)
        with pytest.raises(JobError, match=r"context\.json is not JSON"):
            read_context(tmp_path)
    if isinstance(text, str):
        for body in (text, json.dumps({"Type": "Notification", "Message": text})):
            with pytest.raises(UnreadableMessage):
                parse_message(body)


@pytest.mark.parametrize("line", ["[" * 100_000, '{"mean_intensity": NaN}', '{"age": 1e999}', "{'a'", "[]", "1"])
def test_a_manifest_line_from_elsewhere_is_named(line: str) -> None:
    with pytest.raises(ManifestError, match="manifest line 1"):
        load_rows(f"{line}\n".encode())


def test_a_manifest_holds_finite_numbers() -> None:
    row = '{{"image_id": "a", "source": "a", "source_etag": "1", "source_bytes": 1, "mean_intensity": {}}}\n'
    assert load_rows(row.format("0.5").encode())[0].mean_intensity == 0.5
    for number in ("NaN", "Infinity", "1e999"):
        with pytest.raises(ManifestError, match="manifest line 1"):
            load_rows(row.format(number).encode())


def test_a_serving_archive_that_says_two_things_of_its_origin_is_refused(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("penumo_assets.jobs.infer.handler.Classifier.load", lambda folder: None)
    for text in ('{"phantoms": true, "phantoms": false}', "[" * 100_000, "[]"):
        (tmp_path / "serving.json").write_text(text)
        with pytest.raises(ModelError, match=r"serving\.json"):
            model_fn(str(tmp_path))
