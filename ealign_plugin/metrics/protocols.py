"""Named protocols: figures of different protocols cannot be compared, so each result names its protocol.

Caption metrics are the same in all of them; the protocols differ in when two entities are the same.
"""

from __future__ import annotations

from dataclasses import dataclass

from ealign_plugin.errors import UserError


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """How entities are compared.

    Args:
        name: The name that results carry.
        source: Where the protocol comes from, and where this one deviates from it.
        match_label: Over all labels, a match needs an equal label too.
        fold: Texts are compared lower-cased and without accents.
    """

    name: str
    source: str
    match_label: bool
    fold: bool


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            name="tell",
            source="alasdairtran/transform-and-tell, scripts/compute_metrics.py: equal text and equal label",
            match_label=True,
            fold=False,
        ),
        Protocol(
            name="vacnic",
            source=(
                "tingyu215/VACNIC, evaluate_entity.py: folded text, label ignored over all labels. "
                "Deviations: accents are folded by Unicode decomposition and a short table, where VACNIC "
                "uses unidecode; both sides are tagged and folded alike, where VACNIC reads the references' "
                "entities from its data set and lower-cases the candidates' without folding accents"
            ),
            match_label=False,
            fold=True,
        ),
    )
}


def get_protocol(name: str) -> Protocol:
    """The protocol of this name.

    Raises:
        UserError: no such protocol; the message lists the known ones.
    """
    if name not in PROTOCOLS:
        raise UserError(f"evaluation protocol {name!r} is not known; expected one of {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]
