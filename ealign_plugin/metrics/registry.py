"""What can be measured of a set of captions: a registry that other packages add to.

A metric is a function over a `CaptionSet`. What it returns stands in metrics.json for each context, as a
column of the table, and so in report.txt::

    from ealign_plugin.metrics import CaptionSet, register_metric

    @register_metric("empty_captions", heading="empty")
    def empty_captions(captions: CaptionSet) -> float:
        \"\"\"Share of the captions that say nothing.\"\"\"
        return sum(not caption.strip() for caption in captions.captions) / len(captions.captions)

`ealign_plugin.metrics.builtin` registers those of this package.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from ealign_plugin.errors import UserError
from ealign_plugin.metrics.protocols import Protocol, get_protocol
from ealign_plugin.news import Entity
from ealign_plugin.registry import Registry

Value = float | int | None
"""A figure: a fraction, a count, or None where it is undefined."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionSet:
    """The captions of one context, one row a photo, beside their references; what every metric reads.

    Args:
        references: The raw reference captions.
        captions: The generated captions, in the same order.
        reference_entities: Named entities of each reference caption.
        caption_entities: Named entities of each generated caption, from the same recogniser.
        contexts: The text that the model read for each caption; empty where it is not known.
        protocol: How entities are compared.

    Raises:
        UserError: sequences of different lengths.
    """

    references: Sequence[str]
    captions: Sequence[str]
    reference_entities: Sequence[Sequence[Entity]]
    caption_entities: Sequence[Sequence[Entity]]
    contexts: Sequence[str] = ()
    protocol: Protocol = field(default_factory=lambda: get_protocol("tell"))

    def __post_init__(self) -> None:
        if len(self.captions) != len(self.references):
            raise UserError(
                f"{len(self.references)} reference captions but {len(self.captions)} candidate captions: "
                "one candidate is expected for each reference, in the same order"
            )
        if len(self.reference_entities) != len(self.references):
            raise UserError(
                f"{len(self.references)} captions but entities of {len(self.reference_entities)}: "
                "one sequence of entities is expected for each caption"
            )
        if len(self.caption_entities) != len(self.references):
            raise UserError(
                f"entities of {len(self.references)} reference captions but of "
                f"{len(self.caption_entities)} candidate captions: one sequence is expected for each photo "
                "on both sides"
            )


MetricFunction = Callable[[CaptionSet], Value | Mapping[str, Value]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A registered metric; see `register_metric` for the fields."""

    name: str
    function: MetricFunction
    figures: tuple[str, ...]
    columns: tuple[str, ...]
    headings: Mapping[str, str]
    fraction: bool
    picks_best: bool
    test_only: bool
    note: str
    unavailable: Callable[[], str]

    def measure(self, captions: CaptionSet) -> dict[str, Value]:
        """The metric's figures by name, in the order in which they were declared.

        Raises:
            UserError: the function returned other figures than were declared, or no numbers.
        """
        values = self.function(captions)
        if not isinstance(values, Mapping):
            values = {self.figures[0]: values} if len(self.figures) == 1 else {"": values}
        if set(values) != set(self.figures):
            raise UserError(
                f"metric {self.name!r}: found the figures {', '.join(map(str, values))}, expected "
                f"{', '.join(self.figures)}, as {self.function.__module__} registered them"
            )
        for figure, value in values.items():
            if value is not None and not isinstance(value, int | float):
                raise UserError(
                    f"metric {self.name!r}: {figure} is {type(value).__name__}, expected a number or None; "
                    f"mend {self.function.__module__}"
                )
        return {figure: values[figure] for figure in self.figures}


METRICS: Registry[Metric] = Registry("metric")
"""All metrics, in the order of metrics.json."""


def _always_available() -> str:
    return ""


def register_metric(
    name: str,
    *,
    figures: Sequence[str] = (),
    columns: Sequence[str] | None = None,
    heading: str | Mapping[str, str] = "",
    fraction: bool = True,
    picks_best: bool = True,
    test_only: bool = False,
    note: str = "",
    unavailable: Callable[[], str] = _always_available,
) -> Callable[[MetricFunction], MetricFunction]:
    """Decorate a function that measures captions; it is then part of every evaluation.

    Args:
        name: Name of the metric, as ``run.metrics`` lists it.
        figures: Keys that the function returns; left out: it returns one number, named as the metric.
        columns: Those that the table shows; None: all.
        heading: Heading of the column, or one for each figure; left out: made from the name.
        fraction: The table prints the figures times 100; False: as they are.
        picks_best: ``run.agg_metric`` may name the figures: higher is better.
        test_only: Too slow for a validation, where the figures are None.
        note: A sentence below the table that says what the figures mean.
        unavailable: Called before a test; returns why the figures cannot be measured here, which the report
            prints below the table, which then has no columns of it; empty where they can.

    Raises:
        UserError: another package holds the name, or another metric has a figure of the same name.
    """
    keys = tuple(figures) or (name,)
    shown = keys if columns is None else tuple(columns)
    headings = {keys[0]: heading} if isinstance(heading, str) and heading else dict(heading or {})

    def register(function: MetricFunction) -> MetricFunction:
        for other, metric in METRICS.items():
            if other == name and _origin(metric.function) != _origin(function):
                raise UserError(
                    f"metric {name!r}: registered by {_origin(metric.function)} already, then by "
                    f"{_origin(function)}; rename one of them or uninstall its package"
                )
            if other != name and (both := [key for key in keys if key in metric.figures]):
                raise UserError(
                    f"metric {name!r} of {function.__module__}: the metric {other!r} of "
                    f"{metric.function.__module__} has a figure {both[0]!r} too; rename it"
                )
        METRICS.register(
            name,
            Metric(
                name=name,
                function=function,
                figures=keys,
                columns=shown,
                headings=headings,
                fraction=fraction,
                picks_best=picks_best,
                test_only=test_only,
                note=note,
                unavailable=unavailable,
            ),
        )
        return function

    return register


def _origin(function: MetricFunction) -> str:
    return f"{function.__module__}.{getattr(function, '__qualname__', type(function).__qualname__)}"


def chosen_metrics(names: Sequence[str] | None, where: str = "run.metrics") -> list[Metric]:
    """The metrics of these names in the order of registration; all of them where None.

    Raises:
        UserError: a metric that nobody registered; the message lists what there is.
    """
    if names is None:
        return [metric for _, metric in METRICS.items()]
    wanted = {METRICS.get(name, where).name for name in names}
    return [metric for name, metric in METRICS.items() if name in wanted]


def check_figure(figure: str, metrics: Sequence[Metric], where: str = "run.agg_metric") -> str:
    """The figure itself, where it is one that may pick the best checkpoint.

    Raises:
        UserError: it is not; the message lists those that may.
    """
    known = [
        column
        for metric in metrics
        if metric.picks_best and not metric.test_only
        for column in metric.figures
    ]
    if figure not in known:
        raise UserError(f"{where}: {figure!r} found; one of {', '.join(ordered(known))} expected")
    return figure


def measure(
    captions: CaptionSet, metrics: Sequence[Metric], *, skipped: Sequence[str] = ()
) -> dict[str, str | Value]:
    """All figures of a set of captions, ready for JSON and for `format_table`.

    Args:
        captions: One context's.
        metrics: What to measure.
        skipped: Names of metrics whose figures are None without being measured.

    Returns:
        ``protocol``, ``samples``, and each metric's figures.
    """
    figures: dict[str, str | Value] = {
        "protocol": captions.protocol.name,
        "samples": len(captions.references),
    }
    for metric in metrics:
        figures |= dict.fromkeys(metric.figures) if metric.name in skipped else metric.measure(captions)
    return figures


COLUMN_ORDER = ("names_held", "people_right", "entity_f1", "person_f1", "org_f1", "gpe_f1", "date_f1")
"""Columns that stand first in the table; the others follow in the order of registration."""


def ordered(columns: Sequence[str]) -> list[str]:
    """Columns or figures in the order in which the table shows them."""
    rank = {column: number for number, column in enumerate(COLUMN_ORDER)}
    return sorted(columns, key=lambda column: rank.get(column, len(rank)))
