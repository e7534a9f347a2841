"""Who is held back: in order within a caller, in turn between callers, at the cost of a look a line."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from serving.held import Held


def test_lines_take_turns_and_keep_their_order() -> None:
    held: Held[str] = Held()
    for name in ("a1", "a2", "a3", "b1", "b2"):
        held.add(name[0], name)
    taken: list[str] = []

    def attempt(request: str) -> bool:
        taken.append(request)
        return True

    held.let_in(attempt)
    assert taken == ["a1", "b1", "a2", "b2", "a3"]
    assert len(held) == 0


def test_one_line_that_is_refused_does_not_hold_up_the_others() -> None:
    held: Held[str] = Held()
    for name in ("a1", "a2", "b1"):
        held.add(name[0], name)
    asked: list[str] = []

    def attempt(request: str) -> bool:
        asked.append(request)
        return request[0] == "b"

    held.let_in(attempt)
    assert asked == ["a1", "b1"], "one attempt a line that is refused, however many wait in it"
    assert held.has("a")
    assert not held.has("b")
    assert held.clear() == ["a1", "a2"]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=40), st.integers(0, 40))
def test_what_is_let_in_is_each_callers_oldest(steps: list[tuple[str, bool]], room: int) -> None:
    held: Held[int] = Held()
    waiting: dict[str, list[int]] = {"a": [], "b": [], "c": []}
    for place, (caller, stays) in enumerate(steps):
        number = held.add(caller, place)
        if stays:
            waiting[caller].append(place)
        else:
            held.remove(caller, number)
            held.remove(caller, number)
    left = [room]

    def attempt(request: int) -> bool:
        caller = steps[request][0]
        assert request == waiting[caller][0]
        if not left[0]:
            return False
        left[0] -= 1
        waiting[caller].pop(0)
        return True

    held.let_in(attempt)
    assert len(held) == sum(map(len, waiting.values()))
    assert not (left[0] and len(held)), "room that is left means that nobody waits"
