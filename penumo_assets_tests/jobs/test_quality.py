from penumo_assets.jobs.quality import quality_flags


def test_only_what_a_person_should_look_at_is_flagged() -> None:
    assert quality_flags(["modality:lut", "voi:linear", "depth:16", "reduced:2"], False, []) == ()
    assert quality_flags(["window:percentile"], None, []) == ("window:percentile",)


def test_a_mask_that_was_not_believed_and_burned_in_text_are_flagged() -> None:
    flags = quality_flags(["voi:invalid"], True, ["one_lung", "too_small"])
    assert flags == ("voi:invalid", "implausible_mask:one_lung", "implausible_mask:too_small", "burned_in_annotation")
