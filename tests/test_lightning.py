"""The Lightning callback against a loop of one's own."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest

with warnings.catch_warnings():  # Lightning's and its dependencies' own, when they are imported
    warnings.simplefilter("ignore")
    import pytorch_lightning as pl

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from selshare import BankSGD, MultiTaskModel, SelectiveSharing, Task
from selshare.lightning import SharingCallback
from selshare.sharing import SharingEvent

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*:UserWarning", "ignore:.*:FutureWarning", "ignore:.*:DeprecationWarning"
)
TASKS, EPOCHS = 12, 3


def data(samples: int = 600) -> TensorDataset:
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(3, 10, generator=generator).repeat_interleave(4, 0)
    inputs = torch.randn(samples, 10, generator=generator)
    weights = centres + 0.1 * torch.randn(TASKS, 10, generator=generator)
    return TensorDataset(inputs, (inputs @ weights.T > 0).float())


def multitask() -> MultiTaskModel:
    torch.manual_seed(3)
    trunk = nn.Sequential(nn.Linear(10, 24), nn.ReLU())
    return MultiTaskModel(trunk, 24, (16, 8), [Task.binary(f"t{i}") for i in range(TASKS)])


class Module(pl.LightningModule):
    def __init__(self, manual: bool = False, log_losses: bool = True) -> None:
        super().__init__()
        self.model = multitask()
        self.automatic_optimization = not manual
        self.log_losses = log_losses

    def training_step(self, batch: tuple[Tensor, Tensor], number: int) -> Tensor:
        loss = self.model.loss(self.model(batch[0]), batch[1])
        if not self.automatic_optimization:
            optimizer = self.optimizers()
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], number: int) -> None:
        if self.log_losses:
            losses = self.model.task_losses(self.model(batch[0]), batch[1])
            for name, value in zip(self.model.layout.names, losses.values, strict=True):
                self.log(f"val_loss/{name}", value, on_epoch=True)

    def configure_optimizers(self) -> Any:
        return BankSGD(self.parameters(), lr=0.05, momentum=0.5)


def trainer(callback: SharingCallback, folder: Path, epochs: int = EPOCHS, **options: Any) -> pl.Trainer:
    return pl.Trainer(
        max_epochs=epochs,
        callbacks=[callback],
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=folder,
        **{"enable_checkpointing": False, **options},
    )


def loader() -> DataLoader[Any]:
    return DataLoader(data(), 32)


def own_loop(sharing: SelectiveSharing, epochs: int = EPOCHS) -> MultiTaskModel:
    model = multitask()
    optimizer = BankSGD(model.parameters(), lr=0.05, momentum=0.5)
    sharing.attach(model, optimizer, epochs=epochs, steps=len(loader()))
    for _ in range(epochs):
        for inputs, targets in loader():
            optimizer.zero_grad()
            model.loss(model(inputs), targets).backward()
            optimizer.step()
        if not sharing.settled:
            sharing.end_epoch()
    sharing.detach()
    return model


@pytest.mark.parametrize("manual", [False, True])
@pytest.mark.parametrize("options", [{"preset": "paper"}, {}, {"preset": "paper", "capture": "free"}])
def test_it_does_what_a_loop_of_one_s_own_does(manual: bool, options: dict[str, Any], tmp_path: Path) -> None:
    module, callback = Module(manual), SharingCallback(SelectiveSharing(**options))
    trained = trainer(callback, tmp_path)
    trained.fit(module, loader())
    sharing = SelectiveSharing(**options)
    expected = own_loop(sharing)
    assert expected.bank.branches < TASKS
    assert [event.plan for event in callback.sharing.events] == [event.plan for event in sharing.events]
    assert float(trained.callback_metrics["branches"]) == expected.bank.branches
    for name, tensor in expected.state_dict().items():
        torch.testing.assert_close(module.model.state_dict()[name], tensor, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("options", [{"preset": "paper", "merge": "best"}, {"warmup": 2}])
def test_a_resumed_run_ends_as_one_that_was_not_interrupted(options: dict[str, Any], tmp_path: Path) -> None:
    def callback() -> SharingCallback:
        return SharingCallback(SelectiveSharing(**options))

    whole = Module()
    trainer(callback(), tmp_path).fit(whole, loader())
    # The early end must not move the warm-up: epochs are counted, not asked for.
    first = trainer(callback(), tmp_path, EPOCHS, max_steps=len(loader()))
    first.fit(Module(), loader())
    first.save_checkpoint(tmp_path / "first.ckpt")
    again, resumed = Module(), callback()
    trainer(resumed, tmp_path).fit(again, loader(), ckpt_path=tmp_path / "first.ckpt")
    assert again.model.bank.branches == whole.model.bank.branches < TASKS
    assert (len(resumed.sharing.events) > 0) == ("warmup" in options), "merged after the resume, or before"
    for name, tensor in whole.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], tensor, rtol=1e-5, atol=1e-6)


def test_validated_merges_read_what_the_module_logs(tmp_path: Path) -> None:
    seen: list[SharingEvent] = []

    class Watching(SharingCallback):
        def merged(self, event: SharingEvent, pl_module: pl.LightningModule) -> None:
            seen.append(event)

    sharing = SelectiveSharing(preset="paper", validate_merges=2)
    trainer(Watching(sharing, validation_losses="val_loss/"), tmp_path, 4).fit(Module(), loader(), loader())
    assert any(event.merged for event in seen)
    assert any(event.accepted or event.undone for event in seen)


def test_errors_are_sentences(tmp_path: Path) -> None:
    class Empty(Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = nn.Linear(10, TASKS)

    validated = SelectiveSharing(preset="paper", validate_merges=2)
    with pytest.raises(ValueError, match="Empty holds 0 MultiTaskModels"):
        trainer(SharingCallback(SelectiveSharing()), tmp_path).fit(Empty(), loader())
    with pytest.raises(ValueError, match="log them and name their prefix"):
        trainer(SharingCallback(validated), tmp_path).fit(Module(), loader(), loader())
    callback = SharingCallback(SelectiveSharing(preset="paper", validate_merges=2), validation_losses="val_loss/")
    with pytest.raises(ValueError, match="nothing is logged as 'val_loss/t0'"):
        trainer(callback, tmp_path).fit(Module(log_losses=False), loader(), loader())
