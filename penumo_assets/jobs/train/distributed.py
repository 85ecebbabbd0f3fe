"""One training over several processes: GPUs of one host, hosts of one job, or (on gloo) plain CPUs.

Every process computes its part of each global batch; gradients, batch-norm statistics and the loss
are those of the whole batch, so the number of processes does not change what is learnt.
"""

import json
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import distributed, nn

from penumo_assets.jobs import contract
from penumo_assets.jobs.contract import JobError
from penumo_assets.models.device import compute_device

MASTER_PORT = 29500
RENDEZVOUS_SECONDS = 600.0  # hosts of one job start minutes apart
T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """This process among all of them."""

    rank: int
    size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def gather(self, value: Any) -> list[Any]:
        """``value`` of every process, in order of rank, in every process."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        distributed.all_gather_object(values, value)
        return values

    def from_main(self, make: Callable[[], T]) -> T:
        """What ``make`` gives in the first process, in every process: hosts of one job do not share a disk.

        Raises
        ------
        JobError
            In every process, if ``make`` raises it.
        """
        if self.size == 1:
            return make()
        box: list[Any] = [None, None]
        if self.is_main:
            try:
                box[0] = make()
            except JobError as error:
                box[1] = str(error)
        distributed.broadcast_object_list(box, src=0)
        if box[1] is not None:
            raise JobError(box[1])
        return box[0]

    def leave(self) -> None:
        if self.size > 1:
            distributed.destroy_process_group()


def join_world() -> World:
    """Join the processes that torchrun started (RANK, WORLD_SIZE, LOCAL_RANK), or be alone."""
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    cuda = torch.cuda.is_available()
    device = compute_device(f"cuda:{local_rank}" if cuda else "cpu")
    if cuda:
        torch.cuda.set_device(device)
    if "RANK" not in os.environ:
        return World(0, 1, device)
    distributed.init_process_group("nccl" if cuda else "gloo")
    return World(distributed.get_rank(), distributed.get_world_size(), device)


def processes_per_host() -> int:
    """``SM_NUM_GPUS``, or the visible GPUs, or 1."""
    return max(1, int(os.environ.get("SM_NUM_GPUS", torch.cuda.device_count())))


def launch(module: str, arguments: list[str], per_host: int) -> bool:
    """Start ``module`` once per process on this host and wait; False if one process is enough.

    All hosts of the job meet at the first one. A process that fails has left its reason in
    ``output/failure``, which is what is raised here.

    Raises
    ------
    JobError
        If a process failed.
    """
    current, hosts = contract.hosts()
    if "RANK" in os.environ or per_host * len(hosts) == 1:
        return False
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as torchrun

    os.environ["OMP_NUM_THREADS"] = str(contract.threads(per_host))  # torchrun would set 1
    options = [
        f"--nnodes={len(hosts)}",
        f"--node-rank={hosts.index(current)}",
        f"--nproc-per-node={per_host}",
        f"--master-addr={'127.0.0.1' if len(hosts) == 1 else address(hosts[0])}",
        f"--master-port={os.environ.get('MASTER_PORT', MASTER_PORT)}",
        "--module",
        module,
    ]
    try:
        torchrun([*options, *arguments])
    except ChildFailedError as error:
        failure = contract.opt_ml() / "output" / "failure"
        reason = failure.read_text(encoding="utf-8") if failure.is_file() else str(error)
        raise JobError(reason) from error
    return True


def address(host: str) -> str:
    """The address of a host of this job, whose name may not be known at once.

    Raises
    ------
    JobError
        If nobody knows it after `RENDEZVOUS_SECONDS`.
    """
    until = time.monotonic() + RENDEZVOUS_SECONDS
    while True:
        try:
            return socket.gethostbyname(host)
        except OSError as error:
            if time.monotonic() >= until:
                raise JobError(f"the address of the job's first host, {host}, cannot be found: {error}") from error
        time.sleep(1)


class _SumOverProcesses(torch.autograd.Function):
    """Sum over processes; the gradient of a sum that all of them use is the sum of their gradients."""

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor) -> torch.Tensor:
        total = values.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        total = gradients[0].clone()
        distributed.all_reduce(total)
        return total


class SharedBatchNorm2d(nn.BatchNorm2d):
    """Batch norm (Ioffe & Szegedy 2015) over the batch of all processes, on any device.

    ``torch.nn.SyncBatchNorm`` does this on GPUs only.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return super().forward(input)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        values = input.double()
        count = values.new_tensor([input.numel() / input.shape[1]])
        sums = torch.cat([values.sum(dim=(0, 2, 3)), values.square().sum(dim=(0, 2, 3)), count])
        sums = _SumOverProcesses.apply(sums)
        total = sums[-1].detach()
        mean, square = sums[:-1].view(2, -1) / total
        variance = square - mean.square()
        with torch.no_grad():
            momentum = self.momentum if self.momentum is not None else 0.1
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), momentum)
            self.running_var.lerp_((variance * total / (total - 1)).to(self.running_var.dtype), momentum)
        scale = self.weight.double() * torch.rsqrt(variance + self.eps)
        shift = self.bias.double() - mean * scale
        return torch.addcmul(shift.to(input.dtype).view(1, -1, 1, 1), input, scale.to(input.dtype).view(1, -1, 1, 1))


def share_batch_norm(model: nn.Module, device: torch.device) -> nn.Module:
    """Replace every batch norm by one that sees the batch of all processes; weights and names stay."""
    if device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child) is nn.BatchNorm2d:
                shared = SharedBatchNorm2d(child.num_features, child.eps, child.momentum)
                shared.load_state_dict(child.state_dict())
                setattr(module, name, shared)
    return model


def gpu_names() -> str:
    """The kinds of GPU, for the record; empty on a CPU."""
    names = {torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())}
    return json.dumps(sorted(names)) if names else ""
