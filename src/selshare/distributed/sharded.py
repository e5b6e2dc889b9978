"""A model whose bank is sharded by branch: every rank has the trunk, some branches, and the heads of their tasks."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from ..model import MultiTaskModel, mlp_branch, set_parameter_data
from ..model.bank import resize_stacked, stacked_tensors
from ..model.heads import Heads
from ..model.lazy_gradient import exchange_lazy_gradient
from ..objectives import NonFiniteLoss, TaskLosses, check_some_label, pack_targets, weighted_sum
from ..sharing.merge import apply
from ..sharing.plan import MergePlan
from ..tasks import Task, TaskLayout
from .alike import make_alike
from .batch_norm import GlobalBatchNorm
from .gradients import sum_together
from .moving import Move, StateMove
from .ranks import Ranks
from .rows import Targets, gathered_rows, own_rows, split_evenly


class ShardedModel(nn.Module):
    """The tasks of one model, spread over ranks by branch.

    Every rank holds ``part``, a :class:`~selshare.MultiTaskModel` of its own tasks: a contiguous range of the branches,
    the heads that read them, and the trunk. Of a batch each rank sends its rows through the trunk; the shared
    representations go to every rank (all-gather), each computes its tasks' losses on the whole batch, and the gradients
    at the shared representation come back as sums (reduce-scatter); only the trunk's own are exchanged besides. So a
    bank, its optimizer state and its captures may be as large as all devices together.

    Build it before the optimizer: ``build`` never has more than a rank's part in memory, ``of`` takes a whole model
    apart. The Trainer takes it in place of a model. When branches merge, branches move so that every rank has as many
    again. A rank that no branch is left for keeps an idle one, which learns nothing.

    Attributes
    ----------
    part
        This rank's trunk, branches and heads.
    layout
        Of all tasks.
    assignment
        ``(T,)``: the branch of each task, over all ranks.
    owner
        ``(G,)``: the rank of each branch.
    """

    assignment: Tensor

    def __init__(self, part: MultiTaskModel, layout: TaskLayout, assignment: Tensor, ranks: Ranks) -> None:
        """Use :meth:`build` or :meth:`of`."""
        super().__init__()
        self.part, self.layout, self.ranks = part, layout, ranks
        self.register_buffer("assignment", assignment.clone())
        self._norms = GlobalBatchNorm(part.trunk, ranks)
        self._own(_balanced(int(assignment.max()) + 1, ranks))

    @classmethod
    def build(
        cls,
        trunk: nn.Module,
        shared_features: int | tuple[int, ...],
        hidden: Sequence[int] = (100, 50),
        tasks: Sequence[Task] = (),
        *,
        ranks: Ranks,
        branch: nn.Module | None = None,
        activation: str = "relu",
        dropout: float = 0.0,
    ) -> Self:
        """As :class:`~selshare.MultiTaskModel`; the weights are those that rank 0 would have drawn alone.

        Raises
        ------
        ValueError
            As there, or if there are fewer tasks than ranks.
        """
        layout = TaskLayout(tasks)
        _check_enough(len(layout), ranks)
        own = layout.tasks[own_rows(split_evenly(len(layout), ranks.size), ranks.rank)]
        state = ranks.tell(torch.get_rng_state(), "random state")
        torch.set_rng_state(state)
        part = MultiTaskModel(
            trunk, shared_features, hidden, own, branch=branch, activation=activation, dropout=dropout
        )
        features = next(iter(part.heads.weights.values())).shape[2]
        torch.set_rng_state(state)
        if branch is None:  # draws what the template has drawn
            mlp_branch(part.shared_shape[0], hidden, activation=activation, dropout=dropout)
        part.heads = Heads(part.layout, features, layout.widths)
        make_alike(trunk, ranks)
        with torch.no_grad():
            for tensor in stacked_tensors(part.bank).values():
                tensor.copy_(ranks.broadcast(tensor[:1].clone(), "initial weights").expand_as(tensor))
        return cls(part, layout, torch.arange(len(layout)), ranks)

    @classmethod
    def of(cls, model: MultiTaskModel, ranks: Ranks) -> Self:
        """Shard a model that every rank has whole; rank 0's weights count. ``model`` is used up.

        Raises
        ------
        ValueError
            If it has fewer branches than there are ranks, or the ranks' models differ in shape.
        """
        _check_enough(model.branches, ranks)
        make_alike(model, ranks)
        layout, assignment = model.layout, model.assignment.clone()
        owner = _balanced(model.branches, ranks)
        branches = (owner == ranks.rank).nonzero().flatten()
        tasks = (owner[assignment.cpu()] == ranks.rank).nonzero().flatten().tolist()
        data = {name: t.detach()[branches.to(t.device)] for name, t in stacked_tensors(model.bank).items()}
        resize_stacked(model.bank, data)
        for width, members in layout.widths.items():
            rows = [row for row, task in enumerate(members) if task in set(tasks)]
            for parameters in (model.heads.weights, model.heads.biases):
                set_parameter_data(parameters[str(width)], parameters[str(width)].detach()[rows].clone())
        local = assignment.cpu()[tasks] - int(branches[0])
        model.lay_out(TaskLayout([layout.tasks[task] for task in tasks]), local)
        return cls(model, layout, assignment, ranks)

    @property
    def tasks(self) -> tuple[Task, ...]:
        """All tasks, in order."""
        return self.layout.tasks

    @property
    def branches(self) -> int:
        """How many branches are live, on all ranks."""
        return len(self.owner)

    def tasks_by_branch(self) -> tuple[tuple[int, ...], ...]:
        """For each live branch, the indices of its tasks."""
        members: list[list[int]] = [[] for _ in range(self.branches)]
        for task, branch in enumerate(self.assignment.tolist()):
            members[branch].append(task)
        return tuple(map(tuple, members))

    def of_all(self, own: Tensor, purpose: str) -> Tensor:
        """Values ``(k, n)`` of this rank's tasks → ``(k, T)`` of all tasks, on every rank. All ranks must call it."""
        told = torch.zeros(len(own), len(self.layout), dtype=own.dtype, device=own.device)
        told[:, self.own_tasks] = own[:, : len(self.own_tasks)]
        return self.ranks.all_reduce(told, purpose)

    def recorded(self) -> TaskLosses:
        """Mean recorded loss and number of labels of each task, ``(T,)``, on every rank. All ranks must call it."""
        total, count = self.of_all(torch.stack([self.part.loss_sum, self.part.loss_count]), "recorded losses")
        return TaskLosses(total / count.clamp(min=1), count)

    def recorded_losses(self) -> Tensor:
        """Mean training loss of each task since :meth:`reset_loss_record`, NaN without a label; for all ranks."""
        losses = self.recorded()
        return losses.values.where(losses.labelled > 0, torch.nan)

    def reset_loss_record(self) -> None:
        """Start a new record."""
        self.part.reset_loss_record()

    def start(self) -> None:
        """Before training: the gradients of branches and heads are this rank's own, so they may stay unformed."""
        self._norms.start()
        self._exchange(True)

    def stop(self) -> None:
        """After training."""
        self._norms.stop()
        self._exchange(False)

    def own_outputs(self, inputs: Tensor) -> Tensor:
        """Raw outputs ``(B, …)`` of this rank's tasks for a whole batch, the same on every rank; for all ranks."""
        sizes = split_evenly(len(inputs), self.ranks.size)
        shared = self.part.shared(inputs[own_rows(sizes, self.ranks.rank)])
        every = gathered_rows(shared.flatten(1), self.ranks, sizes, "shared representation")
        return self.part.outputs_from(every.unflatten(1, shared.shape[1:]))

    def own_targets(self, targets: Targets) -> Tensor:
        """The packed targets of this rank's tasks; all missing where it has none."""
        if not self.own_tasks:
            first = next(iter(targets.values())) if isinstance(targets, Mapping) else targets
            return torch.full((len(first), self.part.layout.target_width), torch.nan, device=first.device)
        if isinstance(targets, Mapping):
            return pack_targets(self.part.layout, {name: targets[name] for name in self.part.layout.names}, check=False)
        columns = torch.tensor([c for task in self.own_tasks for c in _columns(self.layout.target_slices[task])])
        return pack_targets(self.part.layout, targets.index_select(1, columns.to(targets.device)), check=False)

    def loss(self, inputs: Tensor, targets: Targets, *, check: bool | None = None, own: bool = False) -> Tensor:
        """The loss of this rank's tasks for a whole batch; all ranks' add up to one process's. For all ranks.

        It is recorded in training mode, and ``check`` is as in :meth:`selshare.MultiTaskModel.loss`; errors name
        the tasks of all ranks. ``own``: ``targets`` are packed and hold the columns of this rank's tasks only.
        """
        outputs = self.own_outputs(inputs)
        losses = self.part.task_losses(outputs, targets if own and self.own_tasks else self.own_targets(targets))
        if outputs.device.type == "cpu" if check is None else check:
            self._check(losses)
        if self.training:
            self.part.record(losses)
        return weighted_sum(self.part.layout, losses)

    def finish(self) -> None:
        """Between backward and step: sum the gradients of the trunk over ranks."""
        gradients = [parameter.grad for parameter in self.part.trunk.parameters() if parameter.grad is not None]
        sum_together(gradients, self.ranks, "gradients")

    @torch.no_grad()
    def merge(
        self,
        plan: MergePlan,
        optimizers: Sequence[torch.optim.Optimizer],
        shared: Tensor | None,
        *,
        compose_branches: bool,
    ) -> None:
        """Carry out a plan for all branches, as :func:`selshare.sharing.apply`, and spread them evenly. For all ranks.

        A group meets on the rank that will have its branch and merges there. Where heads are not refitted and the
        best branch stays as it is, only that one moves.
        """
        if not plan.changes:
            return
        becomes, owner = plan.assignment_map(), _balanced(len(plan.kept()), self.ranks)
        assignment = becomes[self.assignment.cpu()]
        if plan.rule == "best" and shared is None:
            self._move(torch.tensor(plan.kept()), owner, assignment, optimizers)
            return
        self._move(torch.arange(plan.branches), owner[becomes], self.assignment.cpu(), optimizers)
        local = self._local_plan(plan)
        apply(local, self.part, optimizers, shared=shared, compose_branches=compose_branches)
        self.assignment.copy_(assignment)
        self._own(owner)

    def whole(self) -> MultiTaskModel | None:
        """The model in one piece, on the CPU of rank 0; ``None`` elsewhere. For all ranks."""
        branches = Move(self.owner, torch.zeros_like(self.owner), self.ranks)
        rows = slice(0, len(self.own_branches))
        bank = {n: branches(t[rows], "whole model").cpu() for n, t in stacked_tensors(self.part.bank).items()}
        task_owner = self.owner[self.assignment.cpu()]
        heads: dict[str, Tensor] = {}
        for width, members in self.layout.widths.items():
            before = task_owner[list(members)]
            move = Move(before, torch.zeros_like(before), self.ranks)
            for kind in ("weights", "biases"):
                parameter = getattr(self.part.heads, kind)[str(width)]
                own = parameter[: int((before == self.ranks.rank).sum())]
                heads[f"{kind}.{width}"] = move(own, "whole model").cpu()
        if not self.ranks.first:
            return None
        model = copy.deepcopy(self.part).cpu()
        resize_stacked(model.bank, bank)
        for name, parameter in model.heads.named_parameters():
            set_parameter_data(parameter, heads[name])
        model.lay_out(self.layout, self.assignment.cpu())
        return model

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """As in torch, for a state of the same rank of as many ranks, whatever had merged by then."""
        self.register_buffer("assignment", state_dict["assignment"].to(self.assignment.device, copy=True))
        self._own(_balanced(int(self.assignment.max()) + 1, self.ranks))
        for name, parameter in self.part.heads.named_parameters():
            set_parameter_data(parameter, parameter.new_empty(state_dict[f"part.heads.{name}"].shape))
        self._lay_out()
        return super().load_state_dict(state_dict, strict=strict, assign=assign)

    def _move(
        self, kept: Tensor, owner: Tensor, assignment: Tensor, optimizers: Sequence[torch.optim.Optimizer]
    ) -> None:
        """Give branch ``kept[i]`` to rank ``owner[i]`` as branch i, and tasks to where ``assignment`` says."""
        part, rank = self.part, self.ranks.rank
        before, tasks = self.owner, self.owner[self.assignment.cpu()]
        branches = Move(before[kept], owner, self.ranks)
        place = {branch: row for row, branch in enumerate(self.own_branches)}
        rows = torch.tensor([place[b] for b in kept.tolist() if b in place], dtype=torch.int64)
        state = StateMove(list(part.named_parameters()), optimizers, self.ranks)
        self.assignment.copy_(assignment)
        self._own(owner)
        data, states = {}, []
        names = {id(parameter): name for name, parameter in part.named_parameters()}
        for name, tensor in stacked_tensors(part.bank).items():
            data[name] = _some(branches(tensor[rows.to(tensor.device)], "branches that move"), bool(self.own_tasks))
            if isinstance(tensor, nn.Parameter):
                moved = state(names[id(tensor)], tensor, rows.to(tensor.device), branches, "branches that move")
                states.append((tensor, moved, bool(self.own_tasks)))
        for width, members in self.layout.widths.items():
            of = list(members)
            move = Move(tasks[of], owner[assignment[of]], self.ranks)
            own = torch.arange(int((tasks[of] == rank).sum()))
            enough = bool(self.own_tasks) or width != self.tasks[0].outputs
            for parameter in (part.heads.weights[str(width)], part.heads.biases[str(width)]):
                at = own.to(parameter.device)
                moved = state(names[id(parameter)], parameter, at, move, "heads that move")
                set_parameter_data(parameter, _some(move(parameter[at], "heads that move"), enough))
                states.append((parameter, moved, enough))
        resize_stacked(part.bank, data)
        for parameter, moved, enough in states:
            state.put(parameter, {k: _some(v, enough) if _is_rows(v, parameter) else v for k, v in moved.items()})
        self._lay_out()

    def _local_plan(self, plan: MergePlan) -> MergePlan:
        """The groups that have met on this rank, in its own numbering."""
        place = {branch: row for row, branch in enumerate(self.own_branches)}
        here = [(g, s) for g, s in zip(plan.groups, plan.survivors, strict=True) if s in place]
        groups = tuple(tuple(place[branch] for branch in group) for group, _ in here)
        return MergePlan(self.part.branches, groups, tuple(place[survivor] for _, survivor in here), plan.rule)

    def _own(self, owner: Tensor) -> None:
        """Note which rank has which branch, and so which branches and tasks are here."""
        self.owner = owner
        self.own_branches: list[int] = (owner == self.ranks.rank).nonzero().flatten().tolist()
        self.own_tasks: list[int] = (owner[self.assignment.cpu()] == self.ranks.rank).nonzero().flatten().tolist()

    def _lay_out(self) -> None:
        """Let the part be the model of the tasks that are here; of one without labels where there is none."""
        tasks = [self.tasks[task] for task in self.own_tasks] or [self.tasks[0]]
        own = torch.tensor(self.own_branches)
        local = torch.searchsorted(own, self.assignment.cpu()[self.own_tasks]) if self.own_tasks else torch.zeros(1)
        self.part.lay_out(TaskLayout(tasks), local.long())

    def _exchange(self, exchanged: bool) -> None:
        """Whether stacked weights may have lazy gradients although there are several processes."""
        for parameter in self.part.parameters():
            if parameter.ndim == 3:
                exchange_lazy_gradient(parameter, exchanged)

    def _check(self, losses: TaskLosses) -> None:
        """The checks of one process, of all ranks' losses; every rank raises the same."""
        bad = (~torch.isfinite(losses.values.detach())).nonzero().flatten().tolist()
        told = losses.values.new_tensor([len(bad), float(losses.labelled.any())], dtype=torch.float32)
        wrong, labelled = self.ranks.largest(told, "checks of losses").tolist()
        check_some_label(TaskLosses(losses.values, torch.tensor([labelled])))
        if wrong:
            names = self.ranks.hear([self.part.layout.names[task] for task in bad], "tasks with NaN or Inf")
            found = {name for of_rank in names for name in of_rank}
            raise NonFiniteLoss([name for name in self.layout.names if name in found])


def _balanced(branches: int, ranks: Ranks) -> Tensor:
    """The rank of each branch, contiguous and even: ``(branches,)``."""
    sizes = torch.tensor(split_evenly(branches, ranks.size))
    return torch.repeat_interleave(torch.arange(ranks.size), sizes)


def _check_enough(branches: int, ranks: Ranks) -> None:
    """Raise unless every rank gets a branch."""
    if branches < ranks.size:
        raise ValueError(
            f"there are {branches} branches to shard over {ranks.size} ranks; use at most {branches} ranks, or train "
            "data parallel."
        )


def _some(rows: Tensor, enough: bool) -> Tensor:
    """The rows, or a row of zeros for the idle branch of a rank that has none."""
    return rows if enough else rows.new_zeros(1, *rows.shape[1:])


def _is_rows(value: Any, parameter: nn.Parameter) -> bool:
    """Whether state has a row for each of the parameter's."""
    return isinstance(value, Tensor) and value.ndim == parameter.ndim


def _columns(part: slice) -> range:
    """The columns of a slice."""
    return range(part.start, part.stop)
