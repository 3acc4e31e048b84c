"""What came of a sweep: a row a combination of settings, the best one named."""

from __future__ import annotations

from qatexplorer.training.sweep import Sweep, SweptSettings, said
from qatexplorer.views.common.html import Html, tag
from qatexplorer.views.common.names import count, number
from qatexplorer.views.training.progress import duration

TITLES = {
    "freeze_observer_epoch": "observers frozen from epoch",
    "freeze_bn_epoch": "batch norms frozen from epoch",
    "quantizers": "step sizes",
}


def sweep_html(found: Sweep) -> Html:
    """The table of a sweep; what it was measured beside; what is not done."""
    done = sum(len(row.seeds) for row in found.rows)
    best = found.best if any(row.mean is not None for row in found.rows) else None
    head = f"{count(done, 'training')} of {found.trainings:,} done."
    known = (("float", found.float_metric), ("before, with fake quants on", found.before))
    beside = "; ".join(f"{what} {number(value)}" for what, value in known if value is not None)
    if beside:
        head += f" {found.metric_name} beside: {beside}."
    return tag(
        "div",
        tag("p", head),
        tag("p", _difference(found, best)) if best is not None and len(found.rows) > 1 else None,
        _table(found, best) if found.rows else None,
        class_="qx-cures-outcome",
    )


def _difference(found: Sweep, best: SweptSettings) -> str:
    """Whether the best row stands apart from the others by more than the seeds do."""
    means = [row.mean for row in found.rows if row.mean is not None and row is not best]
    spreads = [row.spread for row in found.rows if row.mean is not None]
    if not means or best.mean is None:
        return f"Only {best.words()} was trained to its end."
    gap = min(abs(best.mean - mean) for mean in means)
    wide = max((spread for spread in spreads if spread is not None), default=None)
    words = f"The best is {best.words()}, by {number(gap)} before the next."
    if wide is None:
        return f"{words} One seed each: how far seeds differ is not known."
    if gap <= wide:
        return f"{words} Seeds differ by {number(wide)} (standard deviation), so it may be chance."
    return f"{words} That is more than seeds differ ({number(wide)}, standard deviation)."


def _table(found: Sweep, best: SweptSettings | None) -> Html:
    names = list(found.rows[0].settings)
    heads = [TITLES.get(name, name) for name in names]
    heads += [found.metric_name, "spread", "seeds", "time", ""]
    rows = []
    for row in found.rows:
        numbers = ["–" if v is None else number(v) for v in (row.mean, row.spread)]
        numbers += [f"{len(row.seeds):,}", duration(row.seconds)]
        note = "best" if row is best else row.problems[0] if row.problems else ""
        rows.append(
            tag(
                "tr",
                *(tag("td", said(row.settings[name])) for name in names),
                *(tag("td", cell, class_="qx-number") for cell in numbers),
                tag("td", tag("b", note) if row is best else note),
            )
        )
    head = tag("thead", tag("tr", *(tag("th", text, scope="col") for text in heads)))
    caption = tag("caption", "Mean of the seeds at the end of the training.")
    return tag("table", caption, head, tag("tbody", *rows), class_="qx-results qx-cures-table")
