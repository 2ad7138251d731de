"""A reward without a model: how glad a story is, by its words.

Left out: negation ("not sad" counts as sad) and grammar. That the reward can be fooled is no harm here: both sides are
free to fool it, and what it costs is the KL.
"""

from __future__ import annotations

import re


def _words(text: str) -> frozenset[str]:
    return frozenset(re.findall("[a-z]+", text.lower()))


GLAD = _words("""
    beautiful best better brave bright calm clever delicious enjoy enjoyed excited fun funny giggled glad good great
    happily happy hug hugged joy kind laugh laughed laughing love loved lovely loves lucky nice perfect play played
    playing pleased pretty proud safe shiny smile smiled smiling special sweet thank thanked warm wonderful
""")
SAD = _words("""
    afraid alone angry annoyed bad broke broken cried cry crying danger dangerous dark died fell fight grumpy
    hurt lonely lost mad mean mess naughty pain poor rude sad scared scary sick sorry stole stupid terrible tired ugly
    unhappy upset worried worse worst wrong yelled
""")


def sentiment(text: str) -> float:
    """Count the different glad words of `text`, less the different sad ones; repeating a word gains nothing."""
    words = _words(text)
    return float(len(words & GLAD) - len(words & SAD))
