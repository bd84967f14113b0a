"""What is left of a context when the model drops the beginning of a prompt that is too long for it.

::

    prompt    Article: Ana spoke. It rained. Leo sang. Write the caption …
    read                    oke. It rained. Leo sang. Write the caption …
    context                 oke. It rained. Leo sang.      sentences 0, 1, 2 of 0, 1, 2

Whatever is measured of a context is measured of this rest.
"""

from __future__ import annotations

from ealign_plugin.alignment.contexts import Context
from ealign_plugin.alignment.prompts import fold_white_space
from ealign_plugin.news import NewsSample


def without_beginning(context: Context, sample: NewsSample, characters: int) -> Context:
    """The context without its first characters, and without the sentences of which nothing is left.

    A sentence that does not stand whole in the context, because it alone exceeded the budget, is taken to be
    left as long as any text is.

    Args:
        context: As `build_context` made it.
        sample: The sample that it was made of.
        characters: So many are dropped; none where it is 0 or less.

    Example:
        >>> from ealign_plugin.news import Sentence
        >>> sentences = (Sentence("Ana spoke.", 0, 0), Sentence("It rained.", 0, 11))
        >>> sample = NewsSample(key="a", split="test", caption="", sentences=sentences)
        >>> without_beginning(Context("Ana spoke. It rained.", (0, 1)), sample, 12)
        Context(text='t rained.', sentences=(1,))
    """
    if characters <= 0:
        return context
    text = context.text[characters:].lstrip()
    left: list[int] = []
    limit = len(context.text)
    # From the end, because a headline in front may be worded as a sentence is.
    for index in reversed(context.sentences):
        sentence = fold_white_space(sample.sentences[index].text)
        start = context.text.rfind(sentence, 0, limit)
        if start < 0:
            left += [index] if text else []
            continue
        limit = start
        left += [index] if start + len(sentence) > characters else []
    return Context(text, tuple(reversed(left)))
