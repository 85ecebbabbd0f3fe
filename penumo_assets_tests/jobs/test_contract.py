import pytest

from penumo_assets.jobs import contract


@pytest.mark.parametrize(
    ("wanted", "cores", "processes", "threads"),
    [
        (None, 8, 1, 8),
        (None, 8, 3, 2),
        (None, 2, 4, 1),
        ("1", 8, 1, 1),
        ("6", 8, 2, 6),  # for each process, as everywhere
        ("", 8, 1, 8),
        ("0", 8, 1, 8),
        ("2,1", 8, 1, 8),  # a list for nested teams: no number
    ],
)
def test_threads_are_what_the_environment_says_or_a_share_of_the_cores(
    monkeypatch: pytest.MonkeyPatch, wanted: str | None, cores: int, processes: int, threads: int
) -> None:
    monkeypatch.setattr(contract, "cores", lambda: cores)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if wanted is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", wanted)
    assert contract.threads(processes) == threads
