"""Small results on their way from the device to the host, without waiting for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


class HostCopy:
    """Copies of ``tensors`` on the host. On CUDA they are in pinned memory and on their way;
    :attr:`ready` asks, :meth:`wait` waits. On the CPU they are the tensors themselves."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._sources: Mapping[str, Tensor] = {}
        self._event: torch.cuda.Event | None = None
        if any(t.is_cuda for t in tensors.values()):
            # The sources must outlive the copies.
            self._sources = dict(tensors)
            device = next(t.device for t in tensors.values() if t.is_cuda)
            self._event = torch.cuda.Event()
            self.tensors = {name: _pinned(t) for name, t in tensors.items()}
            # The model need not be on the current device.
            self._event.record(torch.cuda.current_stream(device))
        else:
            self.tensors = {name: t.to("cpu") for name, t in tensors.items()}

    @property
    def ready(self) -> bool:
        return self._event is None or self._event.query()

    def wait(self) -> Mapping[str, Tensor]:
        """The tensors on the host, once they are there."""
        if self._event is not None:
            self._event.synchronize()
        self._sources = {}
        return self.tensors


def _pinned(tensor: Tensor) -> Tensor:
    if not tensor.is_cuda:
        return tensor
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return host.copy_(tensor, non_blocking=True)


def on_device(values: Sequence[float] | Tensor, device: torch.device) -> Tensor:
    """``values`` as a tensor on ``device``, without waiting for it."""
    made = values if isinstance(values, Tensor) else torch.tensor(values)
    if device.type != "cuda":
        return made.to(device)
    return made.pin_memory().to(device, non_blocking=True)


class DeviceTimer:
    """Seconds that a CUDA device spent between :meth:`start` and :meth:`stop`; 0 on the CPU."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._events: tuple[torch.cuda.Event, torch.cuda.Event] | None = None
        if device.type == "cuda":
            make: Any = torch.cuda.Event
            self._events = (make(enable_timing=True), make(enable_timing=True))

    def start(self) -> None:
        if self._events is not None:
            self._events[0].record(torch.cuda.current_stream(self._device))

    def stop(self) -> None:
        if self._events is not None:
            self._events[1].record(torch.cuda.current_stream(self._device))

    @property
    def seconds(self) -> float:
        """To be asked once the copies that were started after :meth:`stop` are ready."""
        if self._events is None:
            return 0.0
        return float(self._events[0].elapsed_time(self._events[1])) / 1e3
