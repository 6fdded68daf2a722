"""Table of a network's parts in execution order, with output sizes and numbers of parameters.

The network runs on torch's meta device, which computes shapes only, so that a patch of any size needs no memory.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from rich.table import Table
from torch import nn
from torch.nn.modules.conv import _ConvNd

from medunet.networks.builder import build_network
from medunet.networks.monai_networks import MonaiNetwork
from medunet.planning.architectures import ARCHITECTURES
from medunet.records.description import Description
from medunet.records.plan import Plan, plan_inputs

_POOLS = (nn.MaxPool2d, nn.MaxPool3d)


@dataclass(frozen=True)
class LayerRow:
    """One part of a network; `output` is the shape `(C, I, J[, K])` of its output, empty if it has none."""

    name: str
    layers: str
    output: tuple[int, ...]
    parameters: int


def summarise_network(plan: Plan, description: Description) -> list[LayerRow]:
    """Return a row for each stage, upsampling and head of the plan's network, with shapes for the plan's patch."""
    own = ARCHITECTURES[plan.network.name].own
    with torch.device("meta" if own else "cpu"):  # some MONAI networks compute values while they are built
        network = build_network(plan, description).to("meta").train()
    parts = _parts(network)
    shapes: dict[str, tuple[int, ...]] = {}

    def record(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            first = output if isinstance(output, torch.Tensor) else output[-1]
            shapes.setdefault(name, tuple(first.shape[1:]))

        return hook

    for name, part in parts.items():
        part.register_forward_hook(record(name))
    num_inputs = plan_inputs(plan, description)
    with torch.no_grad():
        network(torch.empty((2, num_inputs, *plan.patch_size), device="meta"))
    order = {name: position for position, name in enumerate(shapes)}
    return [
        LayerRow(name, _describe(part), shapes.get(name, ()), _count(part))
        for name, part in sorted(parts.items(), key=lambda item: order.get(item[0], len(order)))
    ]


def network_table(plan: Plan, description: Description) -> Table:
    """Return the summary as a table for the terminal, with the total in the last row."""
    rows = summarise_network(plan, description)
    size = _sizes((plan_inputs(plan, description), *plan.patch_size))
    table = Table(title=f"{plan.network.name}, {plan.dimensions}D, input {size}", show_footer=True)
    table.add_column("part", footer="total")
    table.add_column("layers")
    table.add_column("output", justify="right")
    table.add_column("parameters", justify="right", footer=f"{sum(row.parameters for row in rows):,}")
    for row in rows:
        table.add_row(row.name, row.layers, _sizes(row.output), f"{row.parameters:,}")
    return table


def _parts(network: nn.Module) -> dict[str, nn.Module]:
    """Return the parts by name: children, and the children of module lists; shared modules are listed once."""
    top = network.network if isinstance(network, MonaiNetwork) else network
    parts: dict[str, nn.Module] = {}
    seen: set[int] = set()
    for name, part in _children(top):
        weights = {id(weight) for weight in part.parameters()}
        if not weights <= seen:
            parts[name] = part
            seen |= weights
    return parts


def _children(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield children by name; module lists and dictionaries are replaced by their own children."""
    for name, child in module.named_children():
        if isinstance(child, nn.ModuleList | nn.ModuleDict):
            for inner, part in _children(child):
                yield f"{name} {inner}", part
        else:
            yield name, child


def _describe(part: nn.Module) -> str:
    """Return a part's layers in order, equal ones counted: `conv 3×3×1 /2×2×1, 3 × conv 3×3×1`."""
    texts: list[str] = []
    for module in part.modules():
        if isinstance(module, _ConvNd):
            kind = "transposed conv" if module.transposed else "conv"
            stride = "" if set(module.stride) == {1} else f" /{_sizes(module.stride)}"
            texts.append(f"{kind} {_sizes(module.kernel_size)}{stride}")
        elif isinstance(module, _POOLS):
            kernel = module.kernel_size
            texts.append(f"max-pool {_sizes(kernel if isinstance(kernel, tuple) else (kernel,))}")
        elif isinstance(module, nn.Upsample):
            texts.append("interpolation")
    runs: list[tuple[str, int]] = []
    for text in texts:
        if runs and runs[-1][0] == text:
            runs[-1] = (text, runs[-1][1] + 1)
        else:
            runs.append((text, 1))
    if len(runs) > 4:  # nested blocks: only count each kind
        runs = [(text, texts.count(text)) for text in dict.fromkeys(texts)]
    return ", ".join(f"{count} × {text}" if count > 1 else text for text, count in runs)


def _count(part: nn.Module) -> int:
    return sum(weight.numel() for weight in part.parameters())


def _sizes(sizes: Sequence[int]) -> str:
    return "×".join(map(str, sizes))
