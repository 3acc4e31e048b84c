"""A prepared model with other fake quants on some of its weights, for a while."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from torch import nn

from qatexplorer.data import Batch, call_model, device_of
from qatexplorer.evaluate.metric import evaluation_mode
from qatexplorer.quantizers.facts import switch


@contextmanager
def swapped(
    model: nn.Module, made: Mapping[str, nn.Module], batches: Iterable[Batch]
) -> Iterator[None]:
    """Put ``made`` in the place of the fake quants at its paths. They see the weight in a forward
    of the first batch, as they would in the first step of training; at exit the model has its own
    again."""
    before: list[tuple[nn.Module, str, nn.Module]] = []
    try:
        for path, quantizer in made.items():
            owner_path, _, name = path.rpartition(".")
            owner = model.get_submodule(owner_path)
            before.append((owner, name, getattr(owner, name)))
            quantizer.to(device_of(model))
            setattr(owner, name, quantizer)
        first = next(iter(batches), None)
        if first is not None:
            with evaluation_mode(model):  # stops all observers
                for quantizer in made.values():
                    switch(quantizer, observer=True)
                call_model(model, first[0])
                for quantizer in made.values():
                    switch(quantizer, observer=False)
        yield
    finally:
        for owner, name, quantizer in before:
            setattr(owner, name, quantizer)
