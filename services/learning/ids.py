"""A set of ids that end in a number, kept as ranges: ten million contiguous ids cost one pair of integers.

The learner must know of every request that has ended, for ever, or a rollout that comes very late could not be told
from one that comes before its request was read. Ids without a number are kept too, one range each.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable

_NUMBERED = re.compile(r"(.*?)(\d+)", re.DOTALL)


class IdSet:
    """A set of strings.

    >>> ended = IdSet(["r-0001", "r-0003", "r-0002", "by hand"])
    >>> "r-0002" in ended, "r-2" in ended, len(ended), ended.dump()
    (True, False, 4, {'r-#4': [[1, 3]], 'by hand#0': [[0, 0]]})
    >>> IdSet.load(ended.dump()).dump() == ended.dump()
    True
    """

    def __init__(self, ids: Iterable[str] = ()) -> None:
        self._ranges: dict[str, list[list[int]]] = {}
        for one in ids:
            self.add(one)

    def add(self, one: str) -> None:
        """Put an id in; again is no matter."""
        family, number = _split(one)
        ranges = self._ranges.setdefault(family, [])
        after = bisect_right(ranges, number, key=lambda pair: pair[0])
        if after and number <= ranges[after - 1][1]:
            return
        joins_left = after > 0 and ranges[after - 1][1] == number - 1
        joins_right = after < len(ranges) and ranges[after][0] == number + 1
        if joins_left and joins_right:
            ranges[after - 1][1] = ranges.pop(after)[1]
        elif joins_left:
            ranges[after - 1][1] = number
        elif joins_right:
            ranges[after][0] = number
        else:
            ranges.insert(after, [number, number])

    def __contains__(self, one: str) -> bool:
        family, number = _split(one)
        ranges = self._ranges.get(family, [])
        after = bisect_right(ranges, number, key=lambda pair: pair[0])
        return after > 0 and number <= ranges[after - 1][1]

    def __len__(self) -> int:
        return sum(last - first + 1 for ranges in self._ranges.values() for first, last in ranges)

    def dump(self) -> dict[str, list[list[int]]]:
        """As JSON: text before the number and its width -> ranges, both ends included."""
        return {family: [list(pair) for pair in ranges] for family, ranges in self._ranges.items()}

    @classmethod
    def load(cls, dumped: dict[str, list[list[int]]]) -> IdSet:
        """What `dump` gave."""
        made = cls()
        made._ranges = {family: [list(pair) for pair in ranges] for family, ranges in dumped.items()}
        return made


def _split(one: str) -> tuple[str, int]:
    """The id's family (its text, and how many digits follow), and its number.

    The width is part of the family, so that "r-07" and "r-7" stay two ids.
    """
    match = _NUMBERED.fullmatch(one)
    if match is None:
        return f"{one}#0", 0
    return f"{match[1]}#{len(match[2])}", int(match[2])
