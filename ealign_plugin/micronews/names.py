"""Names of whom nobody knows: first names, invented last names, towns, firms and festivals.

Last names, towns, firms and festivals are compounds (Hartwell, Langmouth, Ashcroft Bank, the Kirkland Cup),
so that a tokenizer makes two pieces of a name that it never met. Only what spaCy's small model tags as it
should is taken. The pools are shipped as ``ealign_plugin/configs/micronews/names.json``; this file is how
they were made (``python -m ealign_plugin.micronews.names PATH``), and a test tries some of them again.

Every pool is divided by the name itself into tenths: what one world holds, another never does.
"""

from __future__ import annotations

import json
import random
import sys
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

from ealign_plugin.data.defaults import CONFIGS
from ealign_plugin.entities import VISUAL_LABELS, NamedEntityRecognizer, entity_key, load_ner
from ealign_plugin.files import read_json

WOMEN = """
Karen Susan Fatima Aisha Monica Alice Priya Hannah Linda Maria Clara Laura Rachel Emma Olivia Sophia
Charlotte Evelyn Emily Elizabeth Victoria Nora Hazel Ellie Lucy Anna Genevieve Elena Sarah Ruby Madelyn
Josephine Margaret Catherine Helen Diana Gloria Martha Frances Ruth Kathleen Deborah Nancy Sandra Sharon
Pamela Angela Brenda Amy Cynthia Melissa Stephanie Carolyn Christine Marie Janet Joyce Julie Judith Megan
Andrea Cheryl Jessica Donna Michelle Dorothy Carol Ashley Shirley Nicole Samantha Marilyn Danielle Diane
Natalie Lori Kayla Alexis Astrid Greta Freya Lucia Paula Irene Miriam Yasmin""".split()
MEN = """
James Victor Daniel Henry Ahmed Omar Robert Martin Kevin Michael Thomas George Simon Andrew David Brian
Liam Oliver Alexander Ethan Jacob Sebastian Jack Samuel Owen Matthew Joseph Levi Julian Isaac Gabriel
Anthony Joshua Christopher Theodore Ryan Nathan Aaron Isaiah Charles Jonathan Jeremiah Cameron Connor
Jeremy Nicholas Patrick Benjamin William Richard Mark Paul Steven Kenneth Edward Ronald Timothy Jason
Jeffrey Gary Eric Stephen Larry Scott Brandon Frank Raymond Dennis Jerry Jose Adam Douglas Peter Kyle
Walter Harold Carl Gerald Roger Keith Lawrence Terry Albert Jesse Austin Bruce Ralph Roy Eugene Bobby
Johnny Howard Randy Vincent Russell Oscar Erik Lars Stefan Marco Rafael Ivan Viktor Dmitri""".split()
STEMS = """
Hart Lang Ash Black Brad Brent Bur Cal Chad Clay Dal Den Ed El Far Fen Fin Gar Gil Glad Gold Ham Har Hat
Haw Hay Heath Hol Hunt Kel Ken King Kirk Lam Lin Lock Lyn Mar May Mel Mil Mor Nor Oak Old Pem Pen Pres
Red Rich Rock Ros Rush Sand Sel Shel Sher Silver Stan Stock Sut Swan Tem Tol Up Wake Wal War Wat Wel Wil
Win Wood Wyn York Craw Cran Hal Hop Quin Thorn Wes""".split()
LAST_ENDINGS = """
ham ley man ton field well don croft shaw land more burn hurst cott smith son wood worth brook ridge low
wright den stone dale""".split()
TOWN_ENDINGS = "mouth wick haven minster bridge cester holm port stead bury".split()
FIRMS = ("Group", "Bank", "Institute", "Foundation", "Trust")
FESTIVALS = ("Festival", "Cup", "Games", "Fair")

ENDINGS = (*LAST_ENDINGS, *TOWN_ENDINGS)

_PERSON = (
    "On 14 March, the red-haired goalkeeper {name} came to the harbour town of Lisbon.",
    "{name}, the bearded cook, met a delegation from Siemens.",
    "{name} at the World Cup in Lisbon on 14 March.",
)
_TOWN = (
    "On 14 March, Karen Wright came to the harbour town of {name}.",
    "Hotels across {name} were full.",
    "Karen Wright of Siemens at the World Cup in {name} on 14 March.",
)
_FIRM = (
    "Volunteers from {name}, the firm with the red star, handed out water.",
    "A spokesperson for {name} praised the mood.",
    "Karen Wright of {name} at the World Cup in Lisbon on 14 March.",
)
_FESTIVAL = (
    "Tickets for the {name}, the one with striped blue flags, were sold out.",
    "Karen Wright arrived at the {name} on 14 March.",
    "Karen Wright of Siemens at the {name} in Lisbon on 14 March.",
)


@dataclass(frozen=True, slots=True)
class Pools:
    """The names from which a world draws.

    Args:
        women: First names.
        men: First names.
        last: Last names.
        towns: Names of towns.
        firms: Firms and other organisations.
        festivals: Events, without "the".
    """

    women: tuple[str, ...]
    men: tuple[str, ...]
    last: tuple[str, ...]
    towns: tuple[str, ...]
    firms: tuple[str, ...]
    festivals: tuple[str, ...]

    def part(self, tenths: Sequence[int]) -> Pools:
        """The pools without names of other tenths, in an order in which no stem stands together."""

        def kept(names: Sequence[str]) -> tuple[str, ...]:
            own = (name for name in names if tenth(name.split()[0]) in tenths)
            return tuple(sorted(own, key=lambda name: zlib.crc32(name[::-1].encode())))

        return Pools(
            self.women, self.men, kept(self.last), kept(self.towns), kept(self.firms), kept(self.festivals)
        )


def tenth(name: str) -> int:
    """The tenth of the pools, 0 to 9, in which a compound is, whatever it names."""
    return zlib.crc32(name.encode()) % 10


def unused(pick: Callable[[], Sequence[str]], share: float, used: set[str], rng: random.Random) -> str:
    """A name whose compound stands in no other name that was drawn with the same set, which notes it.

    Args:
        pick: Gives the pool of a try.
        share: The first part of the pool that is drawn from, 0 to 1.
        used: Compounds that were drawn.
        rng: Where the draws come from.
    """
    while True:
        pool = pick()
        found = pool[rng.randrange(max(8, int(len(pool) * share)))]
        if (compound := found.split()[0]) not in used:
            used.add(compound)
            return found


@cache
def pools() -> Pools:
    """The shipped pools."""
    path = CONFIGS.parent / "micronews" / "names.json"
    record = read_json(path, advice="install ealign-plugin again")
    return Pools(**{name: tuple(names) for name, names in record.items()})


def make_pools(ner: NamedEntityRecognizer) -> Pools:
    """The names that the pipeline tags as they are meant, in every sentence in which they are tried."""
    rng = random.Random("names")

    def tagged(names: Sequence[str], templates: Sequence[str], labels: frozenset[str]) -> list[bool]:
        texts = [template.format(name=name) for name in names for template in templates]
        found = [
            {entity_key(entity.text) for entity in entities if entity.label in labels}
            for entities in ner.entities(texts)
        ]
        n = len(templates)
        return [
            all(entity_key(name) in keys for keys in found[i * n : i * n + n]) for i, name in enumerate(names)
        ]

    def kept(
        names: Sequence[str],
        whole: Callable[[str], str],
        templates: Sequence[str],
        labels: frozenset[str],
        tries: int = 1,
    ) -> tuple[str, ...]:
        tried = [(name, whole(name)) for name in names for _ in range(tries)]
        right = tagged([text for _, text in tried], templates, labels)
        wrong = {name for (name, _), good in zip(tried, right, strict=True) if not good}
        return tuple(name for name in names if name not in wrong)

    person = frozenset({"PERSON"})
    last = [stem + ending for stem in STEMS for ending in LAST_ENDINGS if stem.lower() != ending]
    everybody = [*WOMEN, *MEN]
    return Pools(
        women=tuple(WOMEN),
        men=tuple(MEN),
        last=kept(last, lambda name: f"{rng.choice(everybody)} {name}", _PERSON, person, tries=2),
        towns=kept(
            [stem + ending for stem in STEMS for ending in TOWN_ENDINGS],
            str,
            _TOWN,
            frozenset({"GPE", "LOC", "FAC"}),
        ),
        firms=kept(
            [
                f"{stem}{rng.choice(LAST_ENDINGS)} {kind}"
                for stem in STEMS
                for kind in FIRMS
                for _ in range(3)
            ],
            str,
            _FIRM,
            frozenset({"ORG"}),
        ),
        festivals=kept(
            [f"{stem}{rng.choice(LAST_ENDINGS)} {k}" for stem in STEMS for k in FESTIVALS for _ in range(3)],
            str,
            _FESTIVAL,
            frozenset(VISUAL_LABELS) - person,
        ),
    )


if __name__ == "__main__":
    made = make_pools(load_ner())
    record = {name: list(dict.fromkeys(getattr(made, name))) for name in Pools.__slots__}
    with open(sys.argv[1], "w") as file:
        json.dump(record, file, indent=0)
