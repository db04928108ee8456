"""Token ids to text, piece by piece: whole characters only, and nothing that may be the beginning of a stop string.

A character can be spread over tokens, and a token's text can depend on the one before. So a short window is decoded twice, with
and without what is new, and the difference said once it ends in a whole character. All pieces together are the decoding of all
tokens at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

_BROKEN = "\ufffd"  # what a decoder puts in the place of bytes that are no character, or not yet one


class Speller:
    """The text of one reply. decode: token ids to text; stop: strings before which the reply ends."""

    def __init__(self, decode: Callable[[Sequence[int]], str], stop: Sequence[str] = ()) -> None:
        self.decode, self.stop = decode, tuple(stop)
        self.ids: list[int] = []
        self._window = self._said = 0  # tokens before _said are said; those from _window on are decoded again
        self._held = ""
        self.is_stopped = False

    def add(self, token: int) -> str:
        """One more token; gives what can be said now. After a stop string `is_stopped` is true, and what came before it is said."""
        self.ids.append(token)
        old = self.decode(self.ids[self._window : self._said])
        new = self.decode(self.ids[self._window :])
        if len(new) <= len(old) or new.endswith(_BROKEN):
            return ""
        self._window, self._said = self._said, len(self.ids)
        return self._say(new[len(old) :])

    def rest(self) -> str:
        """What was held back, when nothing more comes."""
        if self.is_stopped:
            return ""
        old = self.decode(self.ids[self._window : self._said])
        said = self._say(self.decode(self.ids[self._window :])[len(old) :])
        held, self._held = self._held, ""
        return said if self.is_stopped else said + held

    def _say(self, text: str) -> str:
        if not self.stop:
            return text
        text = self._held + text
        ends = [(text.index(stop) + len(stop), text.index(stop)) for stop in self.stop if stop in text]
        if ends:
            self.is_stopped, self._held = True, ""
            return text[: min(ends)[1]]  # of the one that is complete first, however the text was cut into tokens
        n = max(_overlap(text, stop) for stop in self.stop)
        self._held = text[len(text) - n :]
        return text[: len(text) - n]


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of the text that a stop string begins with."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)
