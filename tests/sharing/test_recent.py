"""The buffer of shared representations: the last rows of training mode, compiled or not, nothing after."""

import pytest
import torch

from selshare.sharing.recent import RecentShared


def test_the_last_rows_are_kept(make_model, make_inputs):
    model, recent = make_model(), RecentShared(10)
    recent.start(model)
    with pytest.raises(RuntimeError, match="no shared representation was seen in this epoch"):
        recent.gathered()
    batches = [make_inputs(size) for size in (4, 7, 5, 2)]
    for batch in batches:
        model(batch)
    model.eval()
    model(make_inputs(3))
    expected = model.trunk(torch.cat(batches))[-10:]
    assert torch.equal(recent.gathered(), expected)
    assert len(recent._batches) == 3, "what is no longer needed is let go"
    recent.reset()
    model.train()
    large = make_inputs(25)
    model(large)
    assert torch.equal(recent.gathered(), model.trunk(large)[-10:])
    recent.stop()
    assert not model.trunk._forward_hooks


def test_a_compiled_model_is_seen(make_model, make_inputs):
    model, recent = make_model(), RecentShared(10)
    recent.start(model)
    compiled = torch.compile(model, backend="aot_eager")
    for inputs in (make_inputs(8), make_inputs(8)):
        compiled(inputs)
        assert torch.equal(recent.gathered()[-8:], model.trunk(inputs))
        recent._batches.pop()
