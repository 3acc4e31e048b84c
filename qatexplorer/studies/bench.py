"""What the arms of all studies work with: float nets by seed, sessions of them, and measuring."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils.data import DataLoader, Subset

from qatexplorer import zoo
from qatexplorer.data import Data
from qatexplorer.session.session import Session
from qatexplorer.zoo.digits import TRAIN_BATCH
from qatexplorer.zoo.train import RECIPES, train

if TYPE_CHECKING:
    from qatexplorer.flows.quant_spec import QuantSpec
    from qatexplorer.studies.effort import Effort

PLAIN = "plain"
"""After the name of a net: without the last step of its recipe, which stretches its channels."""


class Bench:
    """Makes nets and sessions with one effort.

    Args:
        effort: how much is trained.
        folder: float nets are kept there, by name, effort and seed, since many arms begin with the
            same ones. None trains them anew.
    """

    def __init__(self, effort: Effort, folder: Path | None = None) -> None:
        self.effort = effort
        self._folder = folder

    def epochs(self, full: int, least: int = 1) -> int:
        """Epochs of a training that has ``full`` of them with full effort, at least ``least``."""
        return max(least, round(full * self.effort.share))

    def session(self, name: str, seed: int, **settings: Any) -> Session:
        """A session of net ``name`` of the zoo, trained in float with ``seed``; ``settings`` are
        those of :class:`~qatexplorer.Session`. After ``"digits_depthwise plain"`` the channels are
        as training left them."""
        example_name = name.removesuffix(f" {PLAIN}")
        example = zoo.load(example_name)
        model = example.model
        model.load_state_dict(self._weights(example_name, seed))
        finish = RECIPES[example_name].finish
        if finish is not None and name == example_name:
            finish(model)
        data = self._data(example.data)
        session = Session(model.train(), example.example_inputs, data=data, **settings)
        session.warns = False  # what it would warn of is what the studies are about
        return session

    def _data(self, data: Data) -> Data:
        samples = self.effort.samples
        if samples is None:
            return data
        some = Subset(data.train.dataset, range(samples))  # type: ignore[attr-defined]
        return Data(DataLoader(some, TRAIN_BATCH, shuffle=True), data.eval, data.name)

    def _weights(self, name: str, seed: int) -> dict[str, torch.Tensor]:
        """Of the float net, before the last step of its recipe."""
        effort = f"{self.effort.share:g}-{self.effort.samples or 'all'}"
        path = self._folder and self._folder / f"{name}-{effort}-{seed}.safetensors"
        if path and path.exists():
            return load_file(path)
        weights = dict(self._trained(name, seed).state_dict())
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_suffix(f".{os.getpid()}.tmp")
            save_file({key: value.contiguous() for key, value in weights.items()}, part)
            os.replace(part, path)
        return weights

    def _trained(self, name: str, seed: int) -> nn.Module:
        recipe = replace(RECIPES[name], seed=seed, finish=None)
        # It sets torch's random state, which in this process may be somebody's.
        with torch.random.fork_rng(devices=[]):
            return train(recipe, self._data(zoo.load(name).data), self.epochs(recipe.epochs))


def measured(session: Session, *forms: str) -> dict[str, float]:
    """Accuracy in per cent of ``"float"``, ``"ptq"``, ``"fake_quant"`` and ``"int8"`` of a session,
    of those that ``forms`` names. Raises the session's error where one cannot be had."""
    found = session.evaluate(latency=False)
    values = {}
    for form in forms:
        metric = found[form].metric
        if metric is None:
            raise RuntimeError(f"{form} cannot be measured: {found[form].note}")
        values[form] = 100.0 * metric.value
    return values


def all_layers(
    session: Session,
    weight: QuantSpec | None = None,
    activation: QuantSpec | None = None,
    but: Mapping[str, QuantSpec] | None = None,
) -> None:
    """Lay a rule over the whole model; ``but`` has other weights for single paths."""
    session.set_qconfig("", weight=weight, activation=activation)
    for path, spec in (but or {}).items():
        session.set_qconfig(path, weight=spec)
