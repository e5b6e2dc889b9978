"""Every test starts from the same random state, on two threads."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "2")

import hypothesis
import pytest
import torch

hypothesis.settings.register_profile("selshare", deadline=None, derandomize=True, max_examples=30)
hypothesis.settings.load_profile("selshare")
torch.set_num_threads(2)


@pytest.fixture(autouse=True)
def _fixed_seed() -> None:
    torch.manual_seed(0)
