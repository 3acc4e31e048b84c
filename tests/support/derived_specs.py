"""A user's quantizer with every kind of spec, and a net for it: a bias at 32 bits whose scale is
derived of input and weight, a sigmoid whose grid is fixed, and a chain of nodes that share one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn
from torchao.quantization.pt2e import fake_quantize, observer
from torchao.quantization.pt2e import quantizer as theirs

from qatexplorer.flows.annotations import KEY

aten = torch.ops.aten


class Biased(nn.Module):
    """Convolution with a bias, ReLU, two poolings, a sigmoid and a linear layer without a bias;
    (N, 1, 8, 8) in, (N, 4) out."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.act = nn.Conv2d(1, 4, 3, padding=1), nn.ReLU()
        self.pool, self.more = nn.MaxPool2d(2), nn.MaxPool2d(2)
        self.fc = nn.Linear(16, 4, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.more(self.pool(self.act(self.conv(x))))
        out: Tensor = self.fc(torch.sigmoid(x.flatten(1)))
        return out


def product_of_scales(quants: list[Any]) -> tuple[Tensor, Tensor]:
    """Of input and weight: the scale of the sums that the bias is added to."""
    (given, _), (weight, _) = (one.calculate_qparams() for one in quants)
    scale = given * weight
    return scale, torch.zeros_like(scale, dtype=torch.int32)


def _spec(dtype: torch.dtype, low: int, high: int, scheme: torch.qscheme, watch: Any) -> Any:
    made = fake_quantize.FusedMovingAvgObsFakeQuantize.with_args(observer=watch)
    axis = 0 if "channel" in str(scheme) else None
    return theirs.QuantizationSpec(dtype, made, low, high, scheme, axis)


class BiasQuantizer(theirs.Quantizer):  # type: ignore[misc, no-any-unimported]
    """As in torchao's tutorial on quantizers."""

    def annotate(self, model: fx.GraphModule) -> fx.GraphModule:
        nodes = {node.target: node for node in model.graph.nodes if node.op == "call_function"}
        self._annotate_layer(nodes[aten.conv2d.default])
        self._annotate_layer(nodes[aten.linear.default])
        self._annotate_sigmoid(nodes[aten.sigmoid.default])
        before: Any = (nodes[aten.conv2d.default], nodes[aten.relu.default])
        for node in [nodes[aten.relu.default]] + [
            n for n in model.graph.nodes if n.target is aten.max_pool2d.default
        ]:
            self._annotate_sharing(node, before)
            before = node
        return model

    def _annotate_layer(self, node: fx.Node) -> None:
        activation = _spec(
            torch.uint8, 0, 255, torch.per_tensor_affine, observer.MovingAverageMinMaxObserver
        )
        weight = _spec(
            torch.int8, -127, 127, torch.per_channel_symmetric,
            observer.MovingAveragePerChannelMinMaxObserver,
        )  # fmt: skip
        given, taken, *bias = node.all_input_nodes
        specs = {given: activation, taken: weight}
        for one in bias:
            specs[one] = theirs.DerivedQuantizationSpec(
                derived_from=[(given, node), (taken, node)],
                derive_qparams_fn=product_of_scales,
                dtype=torch.int32,
                quant_min=-(2**31),
                quant_max=2**31 - 1,
                qscheme=torch.per_channel_symmetric,
                ch_axis=0,
            )
        node.meta[KEY] = theirs.QuantizationAnnotation(
            input_qspec_map=specs, output_qspec=activation, _annotated=True
        )

    def _annotate_sharing(self, node: fx.Node, with_: Any) -> None:
        shared = theirs.SharedQuantizationSpec(with_)
        given = node.all_input_nodes[0]
        own = _spec(
            torch.uint8, 0, 255, torch.per_tensor_affine, observer.MovingAverageMinMaxObserver
        )
        node.meta[KEY] = theirs.QuantizationAnnotation(
            input_qspec_map={given: own if with_ == (given, node) else shared},
            output_qspec=shared,
            _annotated=True,
        )

    def _annotate_sigmoid(self, node: fx.Node) -> None:
        fixed = theirs.FixedQParamsQuantizationSpec(
            torch.uint8, 1 / 256, 0, 0, 255, torch.per_tensor_affine
        )
        node.meta[KEY] = theirs.QuantizationAnnotation(
            input_qspec_map={}, output_qspec=fixed, _annotated=True
        )

    def validate(self, model: fx.GraphModule) -> None:
        """Nothing to assert."""
