"""How good captions are: caption metrics, entity metrics, ranking metrics, and the protocols that name them.

Plain Python and numpy: importing this room imports neither torch nor LAVIS, so it scores captions of any
origin::

    from ealign_plugin.metrics import evaluate, format_table

    metrics = evaluate("tell", references, candidates, reference_entities, candidate_entities)
    print(format_table([metrics], ["protocol", "bleu4", "rouge", "cider", "entity_f1"]))
"""

from __future__ import annotations

__all__ = [
    "PROTOCOLS",
    "EntityScores",
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
    "score_captions",
    "score_each",
]
