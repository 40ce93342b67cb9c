"""Pictures of losses: as functions, drawn from the code that trains, and over the steps of training, from records."""

from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.figure import Figure

from rmlib.experiments.arms import FINETUNED, changes
from rmlib.figures.arms import about
from rmlib.figures.style import LINES, finished, label, look_of, new_figure
from rmlib.figures.summaries import ladder

NAMES = {"bradley_terry": "Regular", "margin_bradley_terry": "Margin", "scaled_bradley_terry": "Scaled"}
ARM_OF = dict(zip(NAMES, ("bt", "bt_margin", "bt_scaled"), strict=True))  # whose colour a loss has
LOSS_TITLES = {
    "regression": "Regression (points²)", "bradley_terry": "Regular BT (nats)",
    "margin_bradley_terry": "Margin BT (nats)", "scaled_bradley_terry": "Scaled BT (nats)",
}  # fmt: skip
REACH = (-4.0, 6.0)  # of the margins that are drawn, in logits


def losses_figure(_: Path | None = None) -> Figure:
    """The three Bradley-Terry losses and their slopes over the margin, drawn from the functions that train."""
    margin = np.linspace(*REACH, 201)
    figure, axes = new_figure(10, 3.6, 2, sharex=True)
    for name in NAMES:
        for style, strength in zip(LINES, (1.0, 2.0, 3.0), strict=False):
            if name == "bradley_terry" and strength > 1:
                continue
            values, slope = _value_and_slope(name, margin, strength)
            words = name.replace("_bradley_terry", f" BT, m={strength:.0f}").replace("bradley_terry", "regular BT")
            # Scaled BT with m=1 is regular BT: the wide line stays visible below it.
            own = look_of(ARM_OF[name])["color"]
            look = {"ls": style, "color": own, "lw": 5 if name == "bradley_terry" else 1.5}
            axes[0].plot(margin, values, label=words, **look)
            axes[1].plot(margin, slope, **look)
    for panel, words in zip(axes, ("loss (nats)", "slope (nats per logit)"), strict=True):
        panel.set(xlabel="margin: reward of chosen minus rejected (logits)", ylabel=words)
    axes[0].legend(loc="upper right", frameon=False)
    detail = "Bradley-Terry losses, drawn from rmlib.losses"
    return finished(figure, "Three ways to use a preference of strength m", detail)


def loss_at_figure(margin: float, strength: float) -> Figure:
    """The three Bradley-Terry losses of one pair: value and slope at its margin (logits) and strength (1 to 3)."""
    grid = np.linspace(*REACH, 201)
    figure, panels = new_figure(10, 3.1, 3, sharex=True, sharey=True)
    for panel, (loss, name) in zip(panels, NAMES.items(), strict=True):
        (value,), (slope,) = _value_and_slope(loss, np.array([margin]), strength)
        panel.plot(grid, _value_and_slope(loss, grid, strength)[0], color=look_of(ARM_OF[loss])["color"], lw=2)
        x = np.array([margin - 1.5, margin + 1.5])
        panel.plot(x, value + slope * (x - margin), color="black", lw=1)
        panel.plot(margin, value, "o", color="black", ms=5)
        panel.set(title=f"{name}: loss {value:.3f}, slope {slope:+.3f}", xlabel="margin (logits)")
    panels[0].set_ylabel("loss (nats)")
    panels[0].set(xlim=REACH, ylim=(-0.5, 3 * 4.5))
    detail = "black: value and tangent at the margin; one step down the slope moves the margin that way"
    title = f"One pair: margin {margin:+.1f}, strength {strength:g}"
    return finished(figure, title, "drawn from rmlib.losses", detail)


def _value_and_slope(
    loss: str, margin: Float[np.ndarray, "pair"], strength: float
) -> tuple[Float[np.ndarray, "pair"], Float[np.ndarray, "pair"]]:
    """A loss (nats) and its slope (nats per logit) at margins (logits) of pairs of one strength."""
    import torch  # heavy, and no figure of records needs it

    from rmlib import losses  # imports torch

    chosen = torch.tensor(margin, requires_grad=True)
    values = losses.pair_loss(loss, chosen, torch.zeros_like(chosen), torch.full_like(chosen, strength))
    (slope,) = torch.autograd.grad(values.sum(), chosen)
    return values.detach().numpy(), slope.numpy()


def curves_figure(file: Path) -> Figure:
    """Training loss over optimizer steps: one panel per loss, one line per arm (mean of the seeds)."""
    table = ladder(file)
    table = table[table["outcome.training"].notna()]
    loss_of = {name: changes(name.removesuffix(FINETUNED))["loss"] for name in table["name"].unique()}
    panels = [loss for loss in LOSS_TITLES if loss in loss_of.values()]
    figure, axes = new_figure(max(8.5, 3 * len(panels)), 3.8, len(panels))
    for panel, loss in zip(axes, panels, strict=True):
        for name in (name for name in loss_of if loss_of[name] == loss):
            curves = [np.array(row["curve"]) for row in table.loc[table["name"] == name, "outcome.training"]]
            shortest = min(len(curve) for curve in curves)
            mean = np.mean([curve[:shortest] for curve in curves], axis=0)
            smooth = pd.Series(mean[:, 1]).ewm(span=5).mean()
            look = look_of(name, line=True) | {"markevery": 0.2, "ms": 5, "lw": 1.6}
            panel.plot(mean[:, 0], smooth, label=label(name), **look)
        panel.set(title=LOSS_TITLES[loss], xlabel="optimizer step")
    axes[0].set_ylabel("training loss")
    detail = "mean of the seeds, smoothed; each loss has its own scale"
    return finished(figure, "Training loss", about(table), detail, legend=min(4, len(panels) + 1))
