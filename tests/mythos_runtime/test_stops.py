"""Stop texts are found wherever the text was cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mythos_runtime import RequestError
from mythos_runtime.stops import StopTexts

letters = st.text("ab", max_size=12)


@given(text=letters, stops=st.lists(st.text("ab", min_size=1, max_size=3), max_size=3), cuts=st.data())
def test_the_text_before_the_first_stop_however_it_comes(text: str, stops: list[str], cuts: st.DataObject) -> None:
    whole, pieces = StopTexts(stops), StopTexts(stops)
    expected = whole.feed(text) + whole.finish()
    shown, at = "", 0
    while at < len(text):
        size = cuts.draw(st.integers(1, 3))
        shown += pieces.feed(text[at : at + size])
        at += size
    assert (shown + pieces.finish(), pieces.found) == (expected, whole.found)
    assert expected == text if whole.found is None else text.startswith(expected + whole.found)
    assert not any(stop in expected for stop in stops)


def test_only_what_may_begin_a_stop_is_held_back() -> None:
    stop = StopTexts(["END", "\n\n"])
    assert [stop.feed("one\n"), stop.feed("two E"), stop.feed("N")] == ["one", "\ntwo ", ""]
    assert stop.finish() == "EN"


def test_an_empty_stop_is_refused() -> None:
    with pytest.raises(RequestError, match="empty"):
        StopTexts(["a", ""])
