"""A tap leaves its name on the value and nothing else."""

from __future__ import annotations

from graphs import body_of, kinds, looped

from mythos_export.passes.name_taps import name_taps


def test_what_is_tapped_carries_the_name_and_the_node_is_gone() -> None:
    model = looped('sum = Add (h, h)  seen = mythos.tap <name = "h"> (sum)  h_next = Neg (seen)')
    name_taps(model)
    body = body_of(model)
    assert kinds(body) == ["Identity", "Add", "Neg"]
    assert [value.name for node in body for value in node.outputs] == ["on_next", "inside/h", "h_next"]
    assert body[2].inputs[0] is body[1].outputs[0]


def test_a_tapped_value_may_be_what_the_loop_hands_on() -> None:
    model = looped('sum = Add (h, h)  h_next = mythos.tap <name = "h"> (sum)')
    name_taps(model)
    body = body_of(model)
    assert kinds(body) == ["Identity", "Add"]
    assert [value.name for value in body.outputs] == ["on_next", "inside/h"]


def test_a_value_of_two_names_and_one_that_enters_the_body_get_a_node_to_be_named() -> None:
    taps = 'a = mythos.tap <name = "a"> (sum)  b = mythos.tap <name = "b"> (a)  c = mythos.tap <name = "c"> (h)'
    model = looped(f"sum = Add (h, h)  {taps}  both = Add (b, c)  h_next = Neg (both)")
    name_taps(model)
    names = {value.name: node.op_type for node in body_of(model) for value in node.outputs}
    assert (names["inside/a"], names["inside/b"], names["inside/c"]) == ("Add", "Identity", "Identity")
