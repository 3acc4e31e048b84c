"""Small networks that flows quantize in different places."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.ao.quantization import DeQuantStub, QuantStub
from torch.nn import functional


class Residual(nn.Module):
    """A functional ReLU and a functional add, and no stub: FX alone has a place for the add."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.conv, self.relu = nn.Conv2d(4, 4, 3, padding=1), nn.ReLU()
        self.pool = nn.MaxPool2d(2)
        self.fc = nn.Linear(64, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.stem(x))
        x = self.pool(x + self.relu(self.conv(x)))
        out: Tensor = self.fc(x.flatten(1))
        return out


class Stubbed(nn.Module):
    """Its own stubs, a convolution with batch norm and ReLU, and no operation that is no module."""

    def __init__(self) -> None:
        super().__init__()
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.conv, self.bn, self.relu = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()
        self.last = nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn(self.conv(self.quant(x))))
        out: Tensor = self.dequant(self.last(x))
        return out


class Deciding(nn.Module):
    """What it does depends on the values, which no graph can hold."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc(x)
        return -out if out.sum() > 0 else out


class Twice(nn.Module):
    """A module that is called twice, and a weight of its own that a function takes."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.act = nn.Linear(6, 6), nn.ReLU6()
        self.weight = nn.Parameter(torch.randn(4, 6))

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.fc(self.act(self.fc(x))))
        return functional.linear(x, self.weight) / 2


class Doubled(nn.Module):
    """One module under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 3)
        self.act = self.again = nn.Hardswish()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.again(self.second(self.act(self.first(x))))
        return out


class Words(nn.Module):
    """Takes whole numbers by name, as models of ``transformers`` do."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Parameter(torch.randn(9, 6)), nn.Linear(6, 3)

    def forward(self, input_ids: Tensor) -> Tensor:
        out: Tensor = self.head(self.table[input_ids])
        return out


class Scores(nn.Module):
    """Fully connected, with a functional ReLU between."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.second(functional.relu(self.first(x)))
        return out


class NormAct(nn.BatchNorm2d):
    """A batch norm that asks for ``self.training`` in a forward of its own, as timm's do."""

    def __init__(self, size: int, act: nn.Module) -> None:
        super().__init__(size)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        x = functional.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias,
            self.training, 0.1, self.eps,
        )  # fmt: skip
        out: Tensor = self.act(x)
        return out


class OwnNorms(nn.Module):
    """Convolutions with norms of one's own behind them, one with an activation, one without, and
    with one of torch's, which an Identity parts from its ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), NormAct(4, nn.ReLU())
        self.last, self.end = nn.Conv2d(4, 4, 3), NormAct(4, nn.Identity())
        self.plain, self.bn = nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)
        self.drop, self.act = nn.Identity(), nn.ReLU()
        self.fc = nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.end(self.last(self.norm(self.conv(x))))
        x = self.act(self.drop(self.bn(self.plain(x))))
        out: Tensor = self.fc(x.flatten(1))
        return out


class Tokens(nn.Module):
    """An argument that is left out, an Identity, and operations in a method of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm = nn.Linear(6, 6), nn.Identity()
        self.token, self.place = nn.Parameter(torch.randn(1, 1, 6)), nn.Parameter(torch.randn(4, 6))
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor, _mask: Tensor | None = None) -> Tensor:
        out: Tensor = self.head(self.placed(self.norm(self.embed(x))))
        return out

    def placed(self, x: Tensor) -> Tensor:
        return torch.cat([self.token.expand(x.shape[0], -1, -1), x], dim=1) + self.place


def batches(*shape: int, count: int = 3) -> list[tuple[Tensor, Tensor]]:
    """(input, class) pairs of the same shape, the same ones every time."""
    generator = torch.Generator().manual_seed(7)
    return [
        (
            torch.randn(*shape, generator=generator),
            torch.randint(0, 2, shape[:1], generator=generator),
        )
        for _ in range(count)
    ]
