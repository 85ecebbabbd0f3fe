from penumo_assets.jobs.manifest import ManifestRow
from penumo_assets.jobs.quality import identity_counts, quality_flags


def test_only_what_a_person_should_look_at_is_flagged() -> None:
    assert quality_flags(["modality:lut", "voi:linear", "depth:16", "reduced:2"], False, []) == ()
    assert quality_flags(["window:percentile"], None, []) == ("window:percentile",)


def test_a_mask_that_was_not_believed_and_burned_in_text_are_flagged() -> None:
    flags = quality_flags(["voi:invalid"], True, ["one_lung", "too_small"])
    assert flags == ("voi:invalid", "implausible_mask:one_lung", "implausible_mask:too_small", "burned_in_annotation")


def test_pictures_that_may_show_a_name_are_flagged_and_counted() -> None:
    notes = ["window:header", "recognizable_visual_features", "secondary_capture"]
    assert quality_flags(notes, None, ()) == ("recognizable_visual_features", "secondary_capture")
    row = ManifestRow(image_id="a", source="a", source_etag="", source_bytes=1, notes=notes, tags={"burned_in": True})
    gone = row.model_copy(update={"status": "rejected"})
    counts = {"burned_in_annotation": 1, "recognizable_visual_features": 1, "secondary_capture": 1}
    assert identity_counts([row, gone]) == counts
