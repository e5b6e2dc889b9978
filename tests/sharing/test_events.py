"""Events: what is kept of an epoch, and that it survives JSON."""

import json
import math

import pytest
import torch

from selshare.sharing import MergePlan, SharingEvent


def event(**changes):
    entries = {
        "epoch": 2,
        "criterion": "similarity",
        "groups": (("a", "b", "c"),),
        "merged": (("a", "c"),),
        "clusters": (("a", "c"),),
        "branches_before": 3,
        "branches_after": 2,
        "locked": False,
        "lock_reason": None,
        "branch_tasks": (("a", "b"), ("c",), ("d",)),
        "labels": (0, 0, -1),
        "embedded": (0, 1),
        "embedding": torch.tensor([[1.0, 0.0], [0.6, 0.8]]),
        "distances": torch.tensor([[0.0, 0.5], [0.5, 0.0]], dtype=torch.float64),
        "linkage": torch.tensor([[0.0, 1.0, 0.5, 2.0]], dtype=torch.float64),
        "condensed_tree": torch.tensor([[2.0, 0.0, math.inf, 1.0], [2.0, 1.0, 2.0, 1.0]], dtype=torch.float64),
        "plan": MergePlan(3, ((0, 1),), (1,)),
        "seconds": {"embed": 0.25},
    }
    return SharingEvent(**entries | changes)


def test_json_round_trip_is_exact():
    data = event().to_json()
    text = json.dumps(data, allow_nan=False)
    back = SharingEvent.from_json(json.loads(text))
    assert back.to_json() == data
    assert back.groups == (("a", "b", "c"),)
    assert back.labels == (0, 0, -1)
    assert back.plan == MergePlan(3, ((0, 1),), (1,))
    torch.testing.assert_close(back.condensed_tree, event().condensed_tree, rtol=0, atol=0)
    torch.testing.assert_close(back.embedding, event().embedding.double(), rtol=0, atol=0)


def test_event_without_clustering():
    bare = event(embedding=None, distances=None, linkage=None, condensed_tree=None, plan=None, labels=(), embedded=())
    data = bare.to_json()
    assert data["plan"] is None
    assert SharingEvent.from_json(data).to_json() == data


def test_large_arrays_are_left_out():
    data = event().to_json(max_elements=4)
    assert data["condensed_tree"] is None
    assert data["linkage"] == [[0.0, 1.0, 0.5, 2.0]]
    assert event(distances=torch.zeros(501, 501)).to_json()["distances"] is None
    assert len(event(distances=torch.zeros(500, 500)).to_json()["distances"]) == 500


def test_refuses_other_keys():
    data = event().to_json()
    del data["labels"]
    with pytest.raises(ValueError, match="'labels'"):
        SharingEvent.from_json(data)
    with pytest.raises(ValueError, match="'colour'"):
        SharingEvent.from_json(event().to_json() | {"colour": "red"})
