"""asv: embed, cluster, plan and merge after an epoch of planted tasks."""

from __future__ import annotations

from selshare import BankSGD, SelectiveSharing

from .planted import planted_batches, planted_model, train


class EndOfEpoch:
    """One ``SelectiveSharing.end_epoch()``; each repetition merges, so each starts from a new model."""

    params = ([10, 100, 500, 2000], ["free", "sketch"])
    param_names = ("branches", "capture")
    number, repeat, warmup_time, timeout = 1, 3, 0, 300

    def setup(self, branches: int, capture: str) -> None:
        model = planted_model(branches)
        optimizer = BankSGD(model.parameters(), lr=0.02, momentum=0.5)
        self.sharing = SelectiveSharing(capture=capture, sketch_above=0, preset="paper").attach(model, optimizer)
        train(model, optimizer, list(planted_batches(branches, 10)))

    def time_end_epoch(self, branches: int, capture: str) -> None:
        self.sharing.end_epoch()

    def peakmem_end_epoch(self, branches: int, capture: str) -> None:
        self.sharing.end_epoch()
