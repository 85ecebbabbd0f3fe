"""What came of one fault."""

from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass
class Outcome:
    """One fault: where, what, and what came of it.

    Attributes
    ----------
    launches : how often the stage was launched, the disturbed launch included.
    looks : how often a reader looked at everything meanwhile.
    lost : no launch came to the end.
    corrupted : what differs from an undisturbed run in the end, and what the reader found broken meanwhile.
    left_over : what nothing names, and nothing removed.
    unclear : what a launch that failed said, where it does not say what a person needs.
    """

    stage: str
    fault: str
    moment: float = 0.0
    launches: int = 1
    looks: int = 0
    lost: bool = False
    corrupted: list[str] = field(default_factory=list)
    left_over: list[str] = field(default_factory=list)
    unclear: list[str] = field(default_factory=list)


def table(outcomes: Iterable[Outcome]) -> str:
    """One line per stage and kind of fault, and their sum."""
    groups: dict[tuple[str, str], list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault((outcome.stage, outcome.fault), []).append(outcome)
    columns = ("injected", "relaunched", "recovered", "lost", "corrupted", "left over", "unclear")
    lines = [f"{'stage':<15}{'fault':<20}" + "".join(f"{column:>12}" for column in columns)]
    everything = [outcome for group in groups.values() for outcome in group]
    for (stage, fault), group in [*sorted(groups.items()), (("all", ""), everything)]:
        counts = (
            len(group),
            sum(outcome.launches > 1 for outcome in group),
            sum(not outcome.lost and not outcome.corrupted for outcome in group),
            sum(outcome.lost for outcome in group),
            sum(bool(outcome.corrupted) for outcome in group),
            sum(bool(outcome.left_over) for outcome in group),
            sum(bool(outcome.unclear) for outcome in group),
        )
        lines.append(f"{stage:<15}{fault:<20}" + "".join(f"{count:>12}" for count in counts))
    return "\n".join(lines)
