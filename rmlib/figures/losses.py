"""Figures that explain rather than report: drawn from the functions that train, not from records."""

from __future__ import annotations

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rmlib import losses
from rmlib.figures.style import COLOURS, headline, new_figure

NAMES = {
    "bradley_terry": "Regular",
    "margin_bradley_terry": "Margin",
    "scaled_bradley_terry": "Scaled",
}
REACH = (-4.0, 6.0)  # of the margins that are drawn, in logits


def loss_at_figure(margin: float, strength: float) -> Figure:
    """The three Bradley-Terry losses of one pair: value and slope at its margin (logits) and strength (1 to 3)."""
    figure, panels = new_figure(10, 3.1, 3, sharex=True, sharey=True)
    for panel, colour, (loss, name) in zip(panels, COLOURS, NAMES.items(), strict=False):
        value, slope = _value_and_slope(loss, torch.tensor([margin]), strength)
        _draw(panel, loss, strength, colour)
        x = torch.tensor([margin - 1.5, margin + 1.5])
        panel.plot(x, value + slope * (x - margin), color="black", lw=1)
        panel.plot(margin, value, "o", color="black", ms=5)
        panel.set_title(f"{name}: loss {float(value):.3f}, slope {float(slope):+.3f}")
        panel.set_xlabel("margin (logits)")
    panels[0].set_ylabel("loss (nats)")
    panels[0].set(xlim=REACH, ylim=(-0.5, 3 * 4.5))
    detail = "black: value and tangent at the margin; one step down the slope moves the margin that way"
    headline(figure, f"One pair: margin {margin:+.1f}, strength {strength:g}", "drawn from rmlib.losses", detail)
    return figure


def _draw(axes: Axes, loss: str, strength: float, colour: str) -> None:
    grid = torch.linspace(*REACH, 201)
    axes.plot(grid, _value_and_slope(loss, grid, strength)[0], color=colour, lw=2)


def _value_and_slope(loss: str, margin: torch.Tensor, strength: float) -> tuple[torch.Tensor, torch.Tensor]:
    margin = margin.clone().requires_grad_()
    values = losses.pair_loss(loss, margin, torch.zeros_like(margin), torch.full_like(margin, strength))
    (slope,) = torch.autograd.grad(values.sum(), margin)
    return values.detach(), slope
