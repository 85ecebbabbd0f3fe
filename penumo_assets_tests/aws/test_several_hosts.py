"""Two hosts with a disk each, in the image's environment, learn what one does."""

import pytest

from penumo_assets.resources.compute import bundle
from penumo_assets_tests.aws.emulator import Emulator
from penumo_assets_tests.aws.several_hosts import difference, train_on
from penumo_assets_tests.resources.bench import bundle_for_tests


@pytest.mark.slow
def test_two_hosts_learn_what_one_does_through_a_spot_interruption(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a network of three thousand weights, long enough to be interrupted midway."""
    monkeypatch.setattr(bundle, "source_bundle", bundle_for_tests)
    one, two = train_on(emulator, 1, epochs=12), train_on(emulator, 2, epochs=12)
    assert [one["processes"], two["processes"]] == [1, 2]
    assert emulator.api.jobs["Training", two["job_name"]].interruptions == 1
    for name in ("train_loss", "validation_loss"):
        values = [[epoch[name] for epoch in result["history"]] for result in (one, two)]
        assert values[1] == pytest.approx(values[0], rel=1e-4)
    assert difference(one["weights"], two["weights"]) < 1e-4
