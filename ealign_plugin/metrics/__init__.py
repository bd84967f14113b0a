"""How good captions are: caption metrics, entity metrics, ranking metrics, and the protocols that name them.

Plain Python and numpy: importing this room imports neither torch nor LAVIS, so it scores captions of any
origin::

    from ealign_plugin.metrics import evaluate, format_table

    metrics = evaluate("tell", references, candidates, reference_entities, candidate_entities)
    print(format_table([metrics], ["protocol", "bleu4", "rouge", "cider", "entity_f1"]))

`register_metric` adds a figure to every evaluation (`ealign_plugin.metrics.registry`).
"""

from __future__ import annotations

from ealign_plugin.metrics.builtin import evaluate
from ealign_plugin.metrics.captions import find_java, score_captions, score_each
from ealign_plugin.metrics.entities import EntityScores, all_named, entity_scores, names_held
from ealign_plugin.metrics.protocols import PROTOCOLS, Protocol, get_protocol
from ealign_plugin.metrics.ranking import auc, average_precision, list_f1, mean_by_group
from ealign_plugin.metrics.registry import METRICS, CaptionSet, Metric, register_metric
from ealign_plugin.metrics.statistics import caption_statistics
from ealign_plugin.metrics.tables import format_table

__all__ = [
    "METRICS",
    "PROTOCOLS",
    "CaptionSet",
    "EntityScores",
    "Metric",
    "Protocol",
    "all_named",
    "auc",
    "average_precision",
    "caption_statistics",
    "entity_scores",
    "evaluate",
    "find_java",
    "format_table",
    "get_protocol",
    "list_f1",
    "mean_by_group",
    "names_held",
    "register_metric",
    "score_captions",
    "score_each",
]
