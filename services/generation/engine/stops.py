"""Stop strings: finds the first one in a text that grows token by token.

A token may be half a character, or change how the one before it reads, so text is decoded from a little before the new
token and only what can no longer change is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

UNFINISHED = "\N{REPLACEMENT CHARACTER}"


class StopScan:
    """Text of one row, and where its first stop string begins.

    >>> scan = StopScan(lambda ids: "".join(map(chr, ids)), ["END"])
    >>> [scan.feed(ord(letter)) for letter in "so END"]
    [False, False, False, False, False, True]
    >>> scan.text
    'so '
    """

    def __init__(self, decode: Callable[[list[int]], str], stops: Sequence[str]) -> None:
        self._decode = decode
        self._stops = [stop for stop in stops if stop]
        self._longest = max(map(len, self._stops), default=0)
        self._tokens: list[int] = []
        self._settled = 0
        self._read = 0
        self.text = ""
        """Without the stop string, once one was found."""

    def feed(self, token: int, armed: bool = True) -> bool:
        """Add a token; true when a stop string is complete. While not `armed`, none counts."""
        self._tokens.append(token)
        before = self._decode(self._tokens[self._settled : self._read])
        after = self._decode(self._tokens[self._settled :])
        if len(after) <= len(before) or after.endswith(UNFINISHED):
            return False
        begin = max(0, len(self.text) - self._longest + 1)
        self.text += after[len(before) :]
        self._settled, self._read = self._read, len(self._tokens)
        found = [at for stop in self._stops if armed and (at := self.text.find(stop, begin)) >= 0]
        if found:
            self.text = self.text[: min(found)]
        return bool(found)
