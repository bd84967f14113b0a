"""``captioning.json``: all that captioning needs beside the weights, in every checkpoint and exported folder.

::

    {"format": 1,
     "model": {"arch": "ealign_instructblip", "model_type": "micro", …},      resolved
     "templates": {"caption": "Article: {context} …", …},
     "context": "refined",                     what pass 2 reads where a call does not say it
     "inference": {"context_words": 80, "usual_context": "head", "threshold": 0.5, "num_beams": 1, …},
     "ner": {"name": "en_core_web_sm", "version": "3.8.0"},
     "image_processor": {"name": "ealign_image", "image_size": 64, …},
     "text_processor": {"name": "ealign_text"},
     "plugins": [],                            modules that are imported first
     "threshold_choice": {…}}                  of run.threshold: auto, why "threshold" is what it is
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ealign_plugin.alignment.prompts import Templates
from ealign_plugin.entities import DEFAULT_NER
from ealign_plugin.errors import UserError
from ealign_plugin.files import read_json
from ealign_plugin.inference.options import AUTO, INFERENCE_OPTIONS, InferenceOptions
from ealign_plugin.validation import unknown

NAME = "captioning.json"
FORMAT = 1

_TYPES: dict[str, type] = {
    "model": dict,
    "templates": dict,
    "context": str,
    "inference": dict,
    "ner": dict,
    "image_processor": dict,
    "text_processor": dict,
    "plugins": list,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptioningSettings:
    """How a model was trained to be asked, and how it captions.

    Args:
        model: The section ``model`` of the run, resolved.
        templates: The words of the tasks.
        context: What pass 2 reads where a call does not say it.
        options: How the two passes select, read and write.
        ner: ``name`` and ``version`` of the spaCy model that annotated the training's articles; the version
            is empty where it is not known.
        image_processor: ``name`` and arguments.
        text_processor: ``name`` and arguments.
        plugins: Modules to import first; they register models, contexts or processors.
        threshold_choice: How the threshold of the options was chosen, as JSON values; None where it wasn't.
    """

    model: Mapping[str, Any]
    templates: Templates = field(default_factory=Templates)
    context: str = "refined"
    options: InferenceOptions = field(default_factory=InferenceOptions)
    ner: Mapping[str, str] = field(default_factory=lambda: {"name": DEFAULT_NER, "version": ""})
    image_processor: Mapping[str, Any] = field(default_factory=lambda: {"name": "ealign_image"})
    text_processor: Mapping[str, Any] = field(default_factory=lambda: {"name": "ealign_text"})
    plugins: tuple[str, ...] = ()
    threshold_choice: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """The settings as JSON values; `from_json` is its inverse."""
        return {
            "format": FORMAT,
            "model": dict(self.model),
            "templates": asdict(self.templates),
            "context": self.context,
            "inference": asdict(self.options),
            "ner": dict(self.ner),
            "image_processor": dict(self.image_processor),
            "text_processor": dict(self.text_processor),
            "plugins": list(self.plugins),
            **({"threshold_choice": dict(self.threshold_choice)} if self.threshold_choice else {}),
        }

    def to_bytes(self) -> bytes:
        """The file's content."""
        return (json.dumps(self.to_json(), indent=1, ensure_ascii=False) + "\n").encode()

    def with_threshold(self, choice: Mapping[str, Any] | None) -> CaptioningSettings:
        """The settings with the threshold that was chosen, where it is to be chosen and was.

        Args:
            choice: As `ealign_plugin.inference.threshold.ThresholdChoice` writes it; None: none was.
        """
        if choice is None or self.options.threshold != AUTO:
            return self
        options = replace(self.options, threshold=choice["threshold"])
        return replace(self, options=options, threshold_choice=choice)

    def for_exported_folder(self) -> CaptioningSettings:
        """The settings with a model whose weights are all in its folder, LoRA added and nothing frozen."""
        dropped = (
            "pretrained",
            "lavis_checkpoint",
            "language_model",
            "qformer_tokenizer",
            "quantize",
            "lora",
        )
        model = {key: value for key, value in self.model.items() if key not in dropped}
        return replace(
            self, model=model | {"trainable": None, "lora": None, "load_finetuned": False, "finetuned": ""}
        )

    @classmethod
    def from_json(cls, record: Mapping[str, Any], where: str = NAME) -> CaptioningSettings:
        """Read what `to_json` wrote.

        Args:
            record: JSON values.
            where: How an error calls them.

        Raises:
            UserError: another format, a missing or unknown key, or a value of the wrong type or range.
        """
        if record.get("format") != FORMAT:
            raise UserError(
                f"{where}: format {record.get('format')!r} found, {FORMAT} expected; update ealign-plugin"
            )
        choice = {"threshold_choice": dict} if record.get("threshold_choice") is not None else {}
        for key, kind in {**_TYPES, **choice}.items():
            if not isinstance(record.get(key), kind):
                found = type(record[key]).__name__ if key in record else "nothing"
                raise UserError(f"{where}: {key}: found {found}, expected {_JSON_NAMES[kind]}")
        for name in record["inference"]:
            if name not in INFERENCE_OPTIONS:
                raise UserError(unknown(f"{where}: inference", name, INFERENCE_OPTIONS, "option"))
        try:
            return cls(
                model=record["model"],
                templates=Templates().changed(record["templates"]),
                context=record["context"],
                options=InferenceOptions(**record["inference"]),
                ner={"name": str(record["ner"]["name"]), "version": str(record["ner"].get("version") or "")},
                image_processor=record["image_processor"],
                text_processor=record["text_processor"],
                plugins=tuple(map(str, record["plugins"])),
                threshold_choice=record.get("threshold_choice"),
            )
        except (TypeError, KeyError) as error:
            raise UserError(f"{where}: a value is missing or of the wrong type ({error})") from None
        except UserError as error:
            raise UserError(f"{where}: {error}") from None

    @classmethod
    def read(cls, path: Path) -> CaptioningSettings:
        """Read the file.

        Raises:
            UserError: it is missing, no JSON, or as `from_json`.
        """
        return cls.from_json(read_json(path, advice="use another checkpoint"), str(path))


_JSON_NAMES: dict[type, str] = {dict: "a mapping", list: "a list", str: "text"}
