"""First names, and last names that nobody bears: what people are renamed to.

Last names are compounds (Ashcombe, Thornley), which spaCy tags as people's names and which a tokenizer makes
from pieces that it knows.
"""

from __future__ import annotations

WOMEN = """
Alice Anna Barbara Catherine Christine Clara Deborah Diana Elizabeth Emma Fiona Hannah Irene Jennifer
Jessica Joan Judith Karen Kathleen Laura Linda Lucy Margaret Maria Martha Michelle Monica Nancy Natalie
Nicole Nora Patricia Paula Ruth Sarah Sharon Stephanie Susan""".split()

MEN = """
Adam Albert Andrew Anthony Benjamin Brian Charles Daniel David Dennis Edward Eric Frank George Henry Jack
James Jason Jeremy Joseph Julian Kenneth Kevin Lawrence Martin Matthew Michael Nathan Oliver Oscar
Patrick Peter Robert Samuel Simon Stephen Thomas Victor Walter William""".split()

_STEMS = """
Ash Brad Bren Cal Chad Clay Cran Craw Dal Den Far Fen Gar Gold Hal Hart Hat Haw Hol Kel Kirk Lam Lang Lock Mar
Mel Nor Oak Pem Quin Red Ros Rush Sand Shel Stan Sut Thorn Wal War Wel Whit Wil Wood""".split()

_ENDINGS = """
combe cott croft field ford ham hurst land ley man more ridge shaw ton well wood worth""".split()

LAST = [stem + ending for stem in _STEMS for ending in _ENDINGS if stem.lower() != ending]
