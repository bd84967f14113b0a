"""What a checked config names: the class of its model, the image normalisation of its data sets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ealign_plugin.errors import UserError
from ealign_plugin.host.registration import registered_class, registered_names
from ealign_plugin.models.base import NewsModel

if TYPE_CHECKING:
    from ealign_plugin.host.config import HostConfig


def news_model_class(cfg: HostConfig) -> type[NewsModel]:
    """The class of ``model.arch``.

    Raises:
        UserError: it is not a model of this package.
    """
    arch = cfg.model_cfg.arch
    cls = registered_class("model", arch)
    if not issubclass(cls, NewsModel):
        ours = [
            name
            for name in registered_names("model")
            if issubclass(registered_class("model", name), NewsModel)
        ]
        raise UserError(f"model.arch: {arch!r} found, one of {', '.join(ours)} expected")
    return cls


def image_normalisation(cfg: HostConfig) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of the channels, as the data sets' image processors for tests have them.

    Raises:
        UserError: two data sets normalise differently.
    """
    values = {}
    for name, dataset in cfg.datasets_cfg.items():
        section = dataset.vis_processor.eval
        processor = registered_class("processor", section.name).from_config(section)
        if not hasattr(processor, "mean"):  # LAVIS's own
            processor = processor.normalize
        values[name] = (list(processor.mean), list(processor.std))
    if len({str(pair) for pair in values.values()}) > 1:
        raise UserError(
            f"datasets: {' and '.join(values)} have vis_processor.eval with unlike mean or std; "
            "a model is exported with one"
        )
    return next(iter(values.values()))
