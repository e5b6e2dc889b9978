"""The lock: when sharing is over."""

import torch

from selshare.sharing import Lock


def locked_by(*assignment: int) -> str | None:
    lock = Lock()
    lock.check(torch.tensor(assignment, dtype=torch.int64))
    return lock.reason


def test_locks_when_no_task_is_alone():
    assert locked_by(0, 0, 1, 1, 0) == "every task shares its branch with another"
    assert locked_by(0, 0) == "every task shares its branch with another"
    assert locked_by(0, 0, 1) is None
    assert locked_by(0, 1) is None


def test_a_single_task_locks_at_once():
    assert locked_by(0) == "a single task has nothing to share with"


def test_locks_after_that_many_epochs_in_a_row_without_change():
    lock = Lock(patience=3)
    for changed in (False, False, True, False, False):
        lock.count(changed)
        assert not lock.locked
    lock.count(False)
    assert lock.locked
    assert lock.reason == "epochs in a row without a change: 3"


def test_the_first_reason_stays():
    lock = Lock(patience=1)
    lock.check(torch.tensor([0, 0]))
    lock.count(False)
    assert lock.reason == "every task shares its branch with another"
    lock = Lock(patience=1)
    lock.count(False)
    lock.check(torch.tensor([0, 0]))
    assert lock.reason == "epochs in a row without a change: 1"
