"""Several processes under torchrun: gloo on CPU, NCCL on GPU. In one process nothing happens here."""

from __future__ import annotations

import gc
import inspect
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from unlabeled.collectives import world
from unlabeled.errors import UserError

__all__ = ["pick_device"]


def pick_device(name: str) -> torch.device:
    """auto: this process's GPU where there is one, else the CPU."""
    if name == "auto":
        name = f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"no device is called {name!r}; there are: auto, cpu, cuda, cuda:0 ...") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"device {name!r} is asked for and torch sees no GPU; `unlabeled doctor` says more")
    return device


@contextmanager
def processes(device: torch.device) -> Iterator[None]:
    """Join the group that torchrun describes in the environment, and leave it at the end."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1 or dist.is_initialized():
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield
        dist.barrier()  # a rank that leaves early takes threads away under those that still write
    finally:
        gc.collect()  # DDP's own references to the group are in cycles
        dist.destroy_process_group()


def wrap(module: nn.Module) -> nn.Module:
    """DDP over several processes; the module itself in one.

    Our own state is equal on every rank by construction, so buffers are not broadcast; which parameters a
    method leaves unused (a mask token, say) depends on the method, so DDP looks for them.
    """
    if world() == 1:
        return module
    takes = inspect.signature(DistributedDataParallel).parameters
    buffers = (
        "forward_sync_buffers" if "forward_sync_buffers" in takes else "broadcast_buffers"
    )  # as older torch calls it
    return DistributedDataParallel(module, find_unused_parameters=True, **{buffers: False})  # type: ignore[arg-type]


def all_ranks(value: Any) -> list[Any]:
    """Every rank's small object, in rank order."""
    if world() == 1:
        return [value]
    out: list[Any] = [None] * world()
    dist.all_gather_object(out, value)
    return out


def any_rank(flag: bool) -> bool:
    """Whether it holds on any rank."""
    return any(all_ranks(flag)) if world() > 1 else flag
