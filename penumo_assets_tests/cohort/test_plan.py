import hashlib
import re
from collections.abc import Iterable
from dataclasses import replace

import pytest

from penumo_assets.cohort.errors import LandingError
from penumo_assets.cohort.labels import Label, parse_labels
from penumo_assets.cohort.landing import LandedFile, Landing
from penumo_assets.cohort.plan import PlanSettings, PreparePlan, image_id_of, plan_cohort
from penumo_assets.cohort.publish import Manifest, plan_publication
from penumo_assets.configs.prepare import EnhanceConfig, LabelsConfig, NpzConfig, PrepareConfig
from penumo_assets.jobs.manifest import (
    STAGES,
    ManifestRow,
    StageOutput,
    dump_rows,
    fingerprint,
    load_rows,
    stage_version,
)
from penumo_assets.resources.compute.spec import JobResult

JOB = JobResult("1", {}, "jobs/1/output", {}, {})
SETTINGS = PlanSettings(PrepareConfig(), "weights-1", "key-1", STAGES)


def landing_of(*names: str, labels: dict[str, Label] | None = None) -> Landing:
    files = tuple(LandedFile(name, f"etag-{name}", 10) for name in names)
    given = {name: Label(name, patient_id=name.split(".")[0], label="normal") for name in names}
    return Landing("c", files, {}, given if labels is None else labels)


def carry_out(plan: PreparePlan) -> list[ManifestRow]:
    """What the prepare job returns when every image is fine."""
    rows = []
    for item in plan.items:
        row = item.row.model_copy(deep=True)
        row.patient_id = row.patient_id or item.label_patient_id or row.image_id
        if row.stage in item.compute:
            row.status, row.stage, row.code, row.reason = "accepted", None, None, None
        for stage in item.compute:
            suffix = "npz" if stage == "npz" else "png"
            key = f"{stage}/{row.image_id}.{suffix}"
            content = "content of " + item.fingerprints[stage]
            row.stages[stage] = StageOutput(key=key, sha256=content, fingerprint=item.fingerprints[stage])
        rows.append(row)
    return rows


def materialize(landing: Landing, previous: list[ManifestRow], settings: PlanSettings = SETTINGS):
    plan = plan_cohort(landing, previous, settings)
    base = Manifest("c", rows=tuple(previous), digest=hashlib.sha256(dump_rows(previous)).hexdigest())
    publication = plan_publication(landing, plan, settings, base, carry_out(plan), JOB)
    return plan, publication, load_rows(dump_rows(publication.rows))


def names(keys: Iterable[str]) -> list[str]:
    """Keys without the folder of their publication."""
    return [re.sub(r"/[0-9a-f]{12}/", "/", key) for key in keys]


def computed(plan: PreparePlan) -> dict[str, list[str]]:
    return {item.row.source: item.compute for item in plan.items}


def test_a_new_cohort_computes_every_stage_of_every_image() -> None:
    plan, publication, rows = materialize(landing_of("a.png", "b.dcm"), [])
    assert computed(plan) == {"a.png": list(STAGES), "b.dcm": list(STAGES)}
    assert set(names(target for _, target in publication.copies)) >= {"npz/c/a.npz", "npz/c/b.npz"}
    assert all(source.startswith("jobs/1/output/") for source, _ in publication.copies)
    assert [row.status for row in rows] == ["accepted", "accepted"]


def test_an_archived_file_is_rejected_until_it_is_restored() -> None:
    there = landing_of("a.png", "b.png")
    archived = replace(there, files=(there.files[0], replace(there.files[1], archived=True)))
    plan, _, rows = materialize(archived, [])
    assert computed(plan) == {"a.png": list(STAGES)}
    assert [(row.source, row.code) for row in rows if row.status == "rejected"] == [("b.png", "archived")]
    plan, _, rows = materialize(there, rows)
    assert computed(plan) == {"b.png": list(STAGES)}
    assert [row.status for row in rows] == ["accepted", "accepted"]


def test_what_was_prepared_outlives_the_archiving_of_its_file() -> None:
    there = landing_of("a.png", "b.png")
    _, _, rows = materialize(there, [])
    archived = replace(there, files=tuple(replace(file, archived=True) for file in there.files))
    plan, _, again = materialize(archived, rows)
    assert plan.items == ()
    assert again == rows
    changed = replace(SETTINGS, config=PrepareConfig(enhance=EnhanceConfig(crop_margin=0.1)))
    assert set(map(tuple, computed(plan_cohort(archived, rows, changed)).values())) == {("preprocessed", "npz")}
    with pytest.raises(LandingError, match="2 images of cohort 'c' must be computed again"):
        plan_cohort(archived, rows, replace(SETTINGS, key_id="key-2"))
    replaced = replace(archived, files=(archived.files[0], replace(archived.files[1], etag="other")))
    assert [row.code for row in plan_cohort(replaced, rows, SETTINGS).rows] == [None, "archived"]


def test_an_archived_ground_truth_mask_is_rejected_and_its_image_goes_on_without_it() -> None:
    there = landing_of("a.png", "b.png")
    mask = LandedFile("masks/a.png", "etag-mask", 10, archived=True)
    landed = replace(there, truths={"a.png": (mask,)})
    plan, _, rows = materialize(landed, [])
    assert computed(plan) == {"a.png": list(STAGES), "b.png": list(STAGES)}
    assert [item.truths for item in plan.items] == [(), ()]
    assert [(row.source, row.code) for row in rows if row.code] == [("masks/a.png", "archived")]
    again, _, same = materialize(landed, rows)
    assert (again.items, again.removed, same) == ((), (), rows)
    restored, _, rows = materialize(replace(landed, truths={"a.png": (replace(mask, archived=False),)}), rows)
    assert computed(restored) == {"a.png": ["masks", "preprocessed", "npz"]}
    assert restored.removed == ("masks/a.png",)
    kept, _, same = materialize(landed, rows)
    assert (kept.items, same) == ((), rows), "its Dice is known, and nobody has to read it again"


def test_an_unchanged_cohort_computes_nothing() -> None:
    _, _, rows = materialize(landing_of("a.png", "b.dcm"), [])
    plan, publication, again = materialize(landing_of("a.png", "b.dcm"), rows)
    assert plan.items == ()
    assert publication.copies == publication.head.superseded == ()
    assert again == rows
    assert stage_version(again, "npz") == stage_version(rows, "npz")


def test_one_changed_image_costs_one_image() -> None:
    landing = landing_of(*[f"{number}.png" for number in range(20)])
    _, _, rows = materialize(landing, [])
    files = tuple(replace(f, etag="new") if f.source == "7.png" else f for f in landing.files)
    plan, _, _ = materialize(replace(landing, files=files), rows)
    assert computed(plan) == {"7.png": list(STAGES)}


def test_what_changed_gets_a_key_of_its_own_and_the_rest_keeps_its() -> None:
    landing = landing_of("a.png", "b.png")
    _, _, rows = materialize(landing, [])
    files = tuple(replace(file, etag="new") if file.source == "a.png" else file for file in landing.files)
    _, publication, again = materialize(replace(landing, files=files), rows)
    before, after = ({row.source: row.stages["npz"].key for row in each} for each in (rows, again))
    assert after["b.png"] == before["b.png"]
    assert after["a.png"] != before["a.png"]
    assert names([after["a.png"]]) == names([before["a.png"]])
    assert before["a.png"] in publication.head.superseded


def test_the_same_content_over_another_manifest_gets_other_keys() -> None:
    """So a key that was removed once is never used again, and nobody removes what a newer manifest names."""
    landing = landing_of("a.png")
    _, first, rows = materialize(landing, [])
    assert materialize(landing, [])[1] == first
    config = PrepareConfig(enhance=EnhanceConfig(apply_mask=True))
    _, _, changed = materialize(landing, rows, replace(SETTINGS, config=config))
    _, _, back = materialize(landing, changed)
    assert [row.stages["npz"].sha256 for row in back] == [row.stages["npz"].sha256 for row in rows]
    assert stage_version(back, "npz") == stage_version(rows, "npz")
    assert back[0].stages["npz"].key not in (rows[0].stages["npz"].key, changed[0].stages["npz"].key)


def test_a_removed_image_disappears() -> None:
    _, _, rows = materialize(landing_of("a.png", "b.png"), [])
    plan, publication, again = materialize(landing_of("a.png"), rows)
    assert plan.removed == ("b.png",)
    assert {key.split("/")[0] for key in publication.head.superseded} == set(STAGES)
    assert all("b" in key.rsplit("/", 1)[-1] for key in publication.head.superseded)
    assert [row.source for row in again] == ["a.png"]


@pytest.mark.parametrize(
    ("change", "stages"),
    [
        ({"config": PrepareConfig(enhance=EnhanceConfig(apply_mask=True))}, ["preprocessed", "npz"]),
        ({"segmenter_digest": "weights-2"}, ["masks", "preprocessed", "npz"]),
        ({"config": PrepareConfig(npz=NpzConfig(filename="{image_id}"))}, []),
    ],
)
def test_a_changed_setting_computes_exactly_the_stages_it_touches(change: dict, stages: list[str]) -> None:
    _, _, rows = materialize(landing_of("a.png"), [])
    plan, _, _ = materialize(landing_of("a.png"), rows, replace(SETTINGS, **change))
    assert computed(plan) == ({"a.png": stages} if stages else {})


def test_another_key_reads_every_film_again_because_any_name_can_hold_a_dicom_file() -> None:
    landing = landing_of("a.png", "b.dcm", "c.JPG")
    _, _, rows = materialize(landing, [])
    other = replace(SETTINGS, key_id="key-2")
    plan, _, rows = materialize(landing, rows, other)
    assert computed(plan) == {name: ["raw"] for name in ("a.png", "b.dcm", "c.JPG")}
    assert materialize(landing, rows, other)[0].items == ()


def test_without_a_key_an_id_of_labels_csv_is_taken_as_it_is() -> None:
    (item,) = plan_cohort(landing_of("a.png"), [], replace(SETTINGS, key_id="")).items
    expected = {"patient_id": "a", "view": None, "key": None}
    assert item.row.told_by == fingerprint("raw", expected, "etag-a.png")


def test_a_labels_csv_that_comes_late_tells_whose_films_they_are_and_makes_no_picture_anew() -> None:
    landing = landing_of("a.png", "b.dcm", labels={})
    _, _, rows = materialize(landing, [])
    for row in rows:
        row.patient_id = None  # what the job takes from labels.csv, here as there
    plan, publication, again = materialize(landing_of("a.png", "b.dcm"), rows)
    assert computed(plan) == {"a.png": ["raw"], "b.dcm": ["raw"]}
    assert [row.patient_id for row in again] == ["a", "b"]
    assert [source for source, _ in publication.copies] == [row.stages["npz"].key for row in rows]
    assert all(row.stages["masks"] == before.stages["masks"] for row, before in zip(again, rows, strict=True))
    assert stage_version(again, "npz") != stage_version(rows, "npz")
    assert materialize(landing_of("a.png", "b.dcm"), again)[0].items == ()


def test_a_film_that_was_rejected_for_its_patients_id_is_tried_with_another() -> None:
    landing = landing_of("a.png")
    (item,) = plan_cohort(landing, [], SETTINGS).items
    item.row.reject("raw", "unsafe_patient_id", "it is", item.fingerprints["raw"])
    assert plan_cohort(landing, [item.row], SETTINGS).items == ()
    other = landing_of("a.png", labels={"a.png": Label("a.png", patient_id="other", label="normal")})
    assert computed(plan_cohort(other, [item.row], SETTINGS)) == {"a.png": list(STAGES)}


def test_a_new_name_template_moves_tensors_without_computing() -> None:
    _, _, rows = materialize(landing_of("a.png"), [])
    settings = replace(SETTINGS, config=PrepareConfig(npz=NpzConfig(filename="{patient_id}_{image_id}")))
    _, publication, again = materialize(landing_of("a.png"), rows, settings)
    (move,) = publication.copies
    assert move == (rows[0].stages["npz"].key, again[0].stages["npz"].key)
    assert names(move) == ["npz/c/a.npz", f"npz/c/a_{image_id_of('a.png')}.npz"]
    assert publication.head.superseded == (move[0],)


def test_a_chosen_stage_is_computed_alone_and_its_successors_follow_later() -> None:
    _, _, rows = materialize(landing_of("a.png"), [])
    config = PrepareConfig(enhance=EnhanceConfig(apply_mask=True))
    settings = replace(SETTINGS, config=config, stages=("preprocessed",))
    plan, _, rows = materialize(landing_of("a.png"), rows, settings)
    assert computed(plan) == {"a.png": ["preprocessed"]}
    plan, _, _ = materialize(landing_of("a.png"), rows, replace(settings, stages=("npz",)))
    assert computed(plan) == {"a.png": ["npz"]}


def test_a_stage_without_its_predecessor_computes_nothing() -> None:
    plan = plan_cohort(landing_of("a.png"), [], replace(SETTINGS, stages=("npz",)))
    assert plan.items == ()


def test_a_rejected_image_is_tried_again_only_when_its_inputs_change() -> None:
    landing = landing_of("a.png")
    plan = plan_cohort(landing, [], SETTINGS)
    row = plan.items[0].row
    row.reject("raw", "truncated", "cut off", plan.items[0].fingerprints["raw"])
    assert plan_cohort(landing, [row], SETTINGS).items == ()
    changed = replace(landing, files=(LandedFile("a.png", "new", 10),))
    assert computed(plan_cohort(changed, [row], SETTINGS)) == {"a.png": list(STAGES)}


def of_one_patient(*files: str) -> Landing:
    return landing_of(*files, labels={name: Label(name, patient_id="P", label="normal") for name in files})


def tensors(rows: Iterable[ManifestRow]) -> dict[str, str]:
    return {row.source: row.stages["npz"].key.rsplit("/", 1)[-1] for row in rows if "npz" in row.stages}


def also(name: str) -> str:
    return f"P_{image_id_of(name)}.npz"


def test_all_films_of_a_patient_are_kept_under_names_that_their_order_in_landing_does_not_change() -> None:
    _, _, rows = materialize(of_one_patient("b.png", "a.png", "c.png"), [])
    assert tensors(rows) == {"a.png": "P.npz", "b.png": also("b.png"), "c.png": also("c.png")}
    assert {row.status for row in rows} == {"accepted"}
    plan, publication, again = materialize(of_one_patient("c.png", "a.png", "b.png"), rows)
    assert (plan.items, publication.copies, again) == ((), (), rows)


def test_a_film_keeps_its_name_when_others_of_its_patient_come_are_computed_anew_or_go() -> None:
    _, _, alone = materialize(of_one_patient("b.png"), [])
    assert tensors(alone) == {"b.png": "P.npz"}
    plan, _, rows = materialize(of_one_patient("a.png", "b.png"), alone)
    assert computed(plan) == {"a.png": list(STAGES)}
    assert tensors(rows) == {"a.png": also("a.png"), "b.png": "P.npz"}
    assert rows[1].stages["npz"] == alone[0].stages["npz"]

    changed = replace(SETTINGS, config=PrepareConfig(enhance=EnhanceConfig(apply_mask=True)))
    assert tensors(materialize(of_one_patient("a.png", "b.png"), rows, changed)[2]) == tensors(rows)

    plan, publication, left = materialize(of_one_patient("a.png"), rows)
    assert (plan.items, publication.copies) == ((), ())
    assert tensors(left) == {"a.png": also("a.png")}
    assert tensors(materialize(of_one_patient("a.png", "b.png"), left)[2]) == tensors(rows)


def test_tensors_that_are_named_by_their_images_too_keep_their_names_under_the_default() -> None:
    by_image = replace(SETTINGS, config=PrepareConfig(npz=NpzConfig(filename="{patient_id}_{image_id}")))
    _, _, rows = materialize(of_one_patient("a.png", "b.png"), [], by_image)
    plan, publication, again = materialize(of_one_patient("a.png", "b.png"), rows)
    assert (plan.items, publication.copies, tensors(again)) == ((), (), {name: also(name) for name in tensors(rows)})


def test_a_second_film_that_an_earlier_version_rejected_is_taken_up() -> None:
    _, _, rows = materialize(of_one_patient("a.png", "b.png"), [])
    output = rows[1].stages.pop("npz")
    rows[1].reject("npz", "duplicate_patient_id", "P.npz already holds another image", output.fingerprint)
    plan, _, again = materialize(of_one_patient("a.png", "b.png"), rows)
    assert computed(plan) == {"b.png": ["npz"]}
    assert tensors(again) == {"a.png": "P.npz", "b.png": also("b.png")}


def test_a_patient_id_made_to_look_like_the_name_of_anothers_film_takes_nothing_away() -> None:
    labels = {name: Label(name, patient_id="P", label="normal") for name in ("a.png", "b.png")}
    labels["0.png"] = Label("0.png", patient_id=also("b.png").removesuffix(".npz"), label="normal")
    _, _, rows = materialize(landing_of(*labels, labels=labels), [])
    assert tensors(rows) == {
        "0.png": also("b.png"),
        "a.png": "P.npz",
        "b.png": also("b.png").replace(".npz", "_2.npz"),
    }


def test_ids_that_differ_in_case_alone_do_not_share_a_file_on_a_disk_that_ignores_it() -> None:
    labels = {name: Label(name, patient_id=name[0], label="normal") for name in ("P.png", "p.png")}
    both = landing_of("P.png", "p.png", labels=labels)
    _, _, rows = materialize(both, [])
    assert tensors(rows) == {"P.png": "P.npz", "p.png": f"p_{image_id_of('p.png')}.npz"}
    assert materialize(both, rows)[0].items == ()


def test_labels_are_taken_over_without_computing() -> None:
    _, _, rows = materialize(landing_of("a.png"), [])
    labels = {"a.png": Label("a.png", patient_id="a", label="pneumonia", age=7)}
    plan, _, again = materialize(landing_of("a.png", labels=labels), rows)
    assert plan.items == ()
    assert (again[0].label, again[0].age) == ("pneumonia", 7)


def test_problems_of_labels_csv_are_rows_with_a_reason() -> None:
    labels = {
        "a.png": Label("a.png", problem=("unknown_label", "why")),
        "gone.png": Label("gone.png", patient_id="g", label="normal"),
    }
    plan, _, rows = materialize(landing_of("a.png", labels=labels), [])
    assert plan.items == ()
    assert {row.source: row.code for row in rows} == {"a.png": "unknown_label", "gone.png": "missing_file"}
    healed = {"a.png": Label("a.png", patient_id="a", label="normal")}
    assert computed(plan_cohort(landing_of("a.png", labels=healed), rows, SETTINGS)) == {"a.png": list(STAGES)}


@pytest.mark.parametrize("source", ["images/a b.png", "x/../é.dcm", "....png", "名.dcm", "a" * 300 + ".png"])
def test_an_image_id_is_safe_and_differs_between_folders(source: str) -> None:
    from penumo_assets.imaging.deidentify import is_safe_id

    assert is_safe_id(image_id_of(source))
    assert image_id_of(source) != image_id_of("other/" + source)


@pytest.mark.parametrize("name", ["a\\b.png", "ward//a.png", "../a.png", "a\n.png"])
def test_a_name_that_cannot_be_a_files_is_rejected_alone(name: str) -> None:
    plan, _, rows = materialize(landing_of("a.png", name), [])
    assert computed(plan) == {"a.png": list(STAGES)}
    assert {row.source: row.code for row in rows} == {"a.png": None, name: "unsafe_name"}
    assert materialize(landing_of("a.png", name), rows)[0].items == ()


def test_boxes_stand_in_the_manifest_as_long_as_they_lie_on_the_film() -> None:
    table = b"file,patient_id,label,boxes\na.png,p,normal,1 2 30 40; 5 6 7 8\nb.png,q,normal,1 2 30\nc.png,r,normal,\n"
    names = ("a.png", "b.png", "c.png")
    labels = parse_labels(table, "c", LabelsConfig.parse({"file_names": "keep"}), None)
    plan, _, rows = materialize(landing_of(*names, labels=labels), [])
    assert [row.boxes for row in rows] == [[(1, 2, 30, 40), (5, 6, 7, 8)], [], []]
    assert [row.notes for row in rows] == [[], ["boxes:unusable"], []]
    before = stage_version(rows, "npz")
    rows[0].height, rows[0].width = 30, 40  # the boxes were drawn on a larger copy of the film
    plan, _, after = materialize(landing_of(*names, labels=labels), rows)
    assert (computed(plan), after[0].boxes, after[0].notes) == ({}, [], ["boxes:unusable"])
    assert stage_version(after, "npz") != before
