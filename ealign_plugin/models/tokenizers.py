"""Tokenizers as the models need them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ealign_plugin.errors import UserError

# For families


def frame_of(tokenizer: Any) -> tuple[list[int], list[int]]:
    """Ids that a tokenizer puts before and after a text; its bos where it says nothing.

    A LLaMA's gives ``([bos], [])``, a T5's ``([], [eos])``, a BERT's ``([CLS], [SEP])``.
    """
    bare, framed = (tokenizer("a", add_special_tokens=add)["input_ids"] for add in (False, True))
    for start in range(len(framed) - len(bare) + 1):
        if framed[start : start + len(bare)] == bare:
            head, tail = framed[:start], framed[start + len(bare) :]
            return (head, tail) if head or tail else ([tokenizer.bos_token_id], [])
    raise UserError(f"{tokenizer.name_or_path}: its tokenizer reads 'a' in two ways; name another folder")


def end_of(tokenizer: Any, text: str, count: int) -> str:
    """The end of a text that its last ``count`` tokens spell: the whole where it has no more.

    A character of which a byte belongs to the tokens before is left out.

    Args:
        tokenizer: A fast tokenizer of transformers; others know no places.
        text: The text.
        count: Number of tokens, at least 1.
    """
    places = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    dropped = len(places) - count
    return text[places[dropped - 1][1] :] if dropped > 0 else text


def read_tokenizer(path: str | Path) -> Any:
    """transformers' tokenizer of a ``tokenizer.json`` with ``<s>``, ``</s>`` and ``<pad>``.

    Raises:
        UserError: there is no such file.
    """
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    if not Path(path).is_file():
        raise UserError(f"model.tokenizer: {path} is missing; name a folder with a tokenizer.json")
    backend = Tokenizer.from_file(str(path))
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        # Else transformers overrules the file, and a name that begins a text is other tokens than inside.
        add_prefix_space=getattr(backend.pre_tokenizer, "add_prefix_space", False),
        split_special_tokens=True,  # an article that spells "</s>" ends nothing
    )


def text_only(tokenizer: Any) -> Any:
    """A tokenizer to which an article that spells "</s>" is text, and that can fill up."""
    tokenizer.split_special_tokens = True
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer
