"""The hash index beside a dictionary."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.difficulty import index as index_of
from services.difficulty.index import Index

IDS = st.text(st.characters(codec="utf-8"), max_size=6)


@given(st.lists(st.lists(IDS, max_size=40), max_size=6))
def test_it_knows_what_a_dictionary_knows(batches):
    index, known = Index(), {}
    for batch in batches:
        rows_P = index.add(batch)
        for prompt_id in batch:
            known.setdefault(prompt_id, len(known))
        assert rows_P.tolist() == [known[prompt_id] for prompt_id in batch]
        assert dict(index) == known and len(index) == len(known)
    assert list(reversed(index)) == list(reversed(known))
    assert index.find(["absent", *known]).tolist() == [-1, *known.values()]


@pytest.mark.parametrize("told", [0, -1, 1 << 62, -(1 << 62), 5 << 31, (5 << 31) - 1])
def test_ids_of_one_hash_are_told_apart(told):
    """All ids want the same slot, so all but the first eight lie behind those that are looked at together."""
    ids = [f"prompt-{number}" for number in range(40)]
    with patch.object(index_of, "hash", lambda text: told, create=True):
        index = Index()
        assert index.add(ids).tolist() == list(range(40))
        assert index.find(ids[::-1]).tolist() == list(range(39, -1, -1))
        assert index.find(["prompt-x", "x"]).tolist() == [-1, -1] and "prompt-x" not in index
        again = Index.load(*index.dump())
        assert again.find(ids).tolist() == list(range(40))


def test_it_grows_and_is_dumped_and_loaded():
    ids = [f"{number * 0x9E3779B97F4A7C15 % 2**128:032x}" for number in range(5000)]
    index = Index()
    for number in range(0, 5000, 250):
        index.add(ids[number : number + 250])
    again = Index.load(*index.dump())
    for one in (index, again):
        assert np.array_equal(one.find(ids), np.arange(5000)) and one[ids[77]] == 77 and one.id_of(4999) == ids[4999]
        assert one.find([ids[3][:-1], ids[3] + "0", ""]).tolist() == [-1, -1, -1]
        assert one.put("new") == 5000
