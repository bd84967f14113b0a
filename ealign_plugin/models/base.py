"""What the model families have in common: text to tokens, the loss of a batch, scoring and writing.

A family is one file with a subclass of `NewsModel`; see there what it has to provide.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from ealign_plugin.errors import UserError
from ealign_plugin.models.answers import score_answers, write_answers
from ealign_plugin.models.image_tokens import encode_images
from ealign_plugin.models.language_model import build_language_model
from ealign_plugin.models.lora import lora_options
from ealign_plugin.models.loss import loss_of
from ealign_plugin.models.meta import give_memory
from ealign_plugin.models.quantization import quantize_language_model
from ealign_plugin.models.section import default_path, defaults_of, plain, tokenizer_path, values
from ealign_plugin.models.tokenizers import end_of
from ealign_plugin.models.trainable import set_trainable, trainable_names
from ealign_plugin.models.weights.checkpoint import checkpoint_metadata, load_checkpoint
from ealign_plugin.models.weights.hub import fetch
from ealign_plugin.models.weights.loading import load_weights_into

BATCHINGS = ("groups", "packed", "padded")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class NewsModel(nn.Module):
    """A language model that reads ``before``, the image tokens and the prompt, and writes the target.

    ::

                     before         image tokens     prompt                    target
        InstructBLIP                32 of Q-Former   <s>Write a caption.       Ana Lopez speaks.</s>
        LLaVA        <s>USER:       576 of CLIP      Write … ASSISTANT:        Ana Lopez speaks.</s>
                     ids [k]        [Q, D]           ids [P]                   ids [T]

    A batch is a dict: ``image`` float [B, 3, H, W]; lists of B strings ``instruction``, ``target``,
    ``question`` (the part of the instruction that is no article; the instruction where it is missing),
    ``task`` and ``key``. Examples with the same ``key`` show the same image: it is encoded once. ``rows`` may
    hold the tokens of instructions and targets, where another process made them (`loss.rows_of`).

    A family calls ``super().__init__`` first and then sets or defines:

    - ``config`` (with ``text_config``), ``tokenizer``;
    - ``language_model`` by `build_language_model`: a causal one, or an encoder-decoder such as T5, whose
      encoder reads everything but the target;
    - ``frame``: ids around the text of a prompt, by `frame_of`; or `prompts`, `framed` and `remaining`, where
      that isn't enough;
    - ``before``: ids in front of the image tokens, the same for every prompt; none where it is left out;
    - ``reads``: what the image tokens depend on besides the image: ``question`` (as is), ``instruction``
      (the whole) or ``nothing``;
    - `vision_features` (images → features) and `image_tokens` (features, questions → [B, Q, D]);
    - ``PARTS``: its submodules by part, for the choice of what is trained;
    - for folders of transformers: `without_weights`, ``PUBLISHED_AS`` and `processor`.

    Its ``__init__`` ends with `set_precision`, its ``from_config`` with `set_up`.

    Args:
        max_txt_len: Longest instruction in tokens; of a longer one the beginning is dropped.
        max_output_txt_len: Longest target in tokens; of a longer one the end is dropped.
        loss_reduction: ``token``: the mean over all target tokens, as InstructBLIP; ``example``: the mean
            over examples of their tokens' means, so that a one-word answer weighs as much as a caption.
        batching: How the examples of a batch run: ``groups`` of like length, padded; ``packed`` end to end
            without padding (see `packing`; encoder-decoders fall back to groups); ``padded`` to the longest.
        padding_waste: Of ``groups``: the largest share of padding in one.
        max_tokens: Most tokens in one forward of the language model, padding included; a batch of more runs
            in several, with the same gradients. None: no limit.
        attn_implementation: transformers' name of the language model's attention; None: its default.
        gradient_checkpointing: Keep only each layer's input for the backward pass and compute the rest again.
        compile: Run the language model through torch.compile in `forward` and `score`, not in `generate`,
            whose growing cache would be compiled again and again.
        dtype: Of the language model while it is frozen: ``fp32``, ``bf16`` or ``fp16``. What is trained is
            float32 (`set_up`).
        vision_dtype: The same of the image encoder.
    """

    PRETRAINED_MODEL_CONFIG_DICT: ClassVar[dict[str, str]]
    """Model type → its YAML file, whose section ``model`` holds the defaults (the name is LAVIS's)."""
    PARTS: ClassVar[dict[str, tuple[str, ...]]]
    """Part (``vision``, ``connector``, ``llm``) → names of its submodules and parameters."""
    PUBLISHED_AS: ClassVar[str]
    """transformers' class whose folders the family reads, and writes when it is exported."""
    SHAPE: ClassVar[tuple[str, ...]]
    """Keys of a section ``model`` that make up ``config``, where no weights are named."""
    OPTIONS: ClassVar[tuple[str, ...]] = (
        *("max_txt_len", "max_output_txt_len", "loss_reduction", "batching", "padding_waste", "max_tokens"),
        *("attn_implementation", "gradient_checkpointing", "compile", "dtype", "vision_dtype"),
    )
    """Keys that are arguments."""

    config: Any
    tokenizer: Any
    language_model: Any
    before: list[int]
    frame: tuple[list[int], list[int]]
    reads: str

    def __init__(
        self,
        *,
        max_txt_len: int = 512,
        max_output_txt_len: int = 128,
        loss_reduction: str = "token",
        batching: str = "groups",
        padding_waste: float = 0.15,
        max_tokens: int | None = None,
        attn_implementation: str | None = None,
        gradient_checkpointing: bool = False,
        compile: bool = False,
        dtype: str = "fp32",
        vision_dtype: str = "fp32",
    ) -> None:
        super().__init__()
        if loss_reduction not in ("token", "example"):
            raise UserError(f"model.loss_reduction: {loss_reduction!r} found; 'token' or 'example' expected")
        if batching not in BATCHINGS:
            raise UserError(f"model.batching: {batching!r} found; one of {', '.join(BATCHINGS)} expected")
        if batching == "packed" and attn_implementation not in (None, "sdpa"):
            raise UserError(
                f"model.attn_implementation: {attn_implementation!r} found beside model.batching packed; "
                "'sdpa' or null expected (packed rows take a variable-length kernel by themselves where "
                "there is one), or set model.batching: groups"
            )
        if max_tokens is not None and max_tokens < 1:
            raise UserError(
                f"model.max_tokens: {max_tokens} found; at least 1 expected, or null for no limit"
            )
        for key, value in (("dtype", dtype), ("vision_dtype", vision_dtype)):
            if value not in DTYPES:
                raise UserError(f"model.{key}: {value!r} found; one of {', '.join(DTYPES)} expected")
        self.max_txt_len, self.max_output_txt_len = max_txt_len, max_output_txt_len
        self.loss_reduction, self.batching = loss_reduction, batching
        self.padding_waste, self.max_tokens = padding_waste, max_tokens
        self.attn_implementation, self.compiled = attn_implementation, compile
        self.gradient_checkpointing = gradient_checkpointing
        self.dtypes = {"llm": DTYPES[dtype], "vision": DTYPES[vision_dtype]}
        self.before, self.reads = [], "question"
        self.identity: dict[str, str] = {}  # what a checkpoint says of the model it belongs to

    @classmethod
    def from_config(cls, cfg: Mapping[str, Any]) -> Self:
        """Build from the section ``model`` of a config (see ``configs/models``), defaults included.

        ``pretrained`` names where weights and tokenizers come from: a folder or hub id of transformers. Left
        out: random weights, and a tokenizer of ours.
        """
        section = plain(cfg)
        model = cls.load_pretrained(section)
        model.set_up(section)
        return model

    @classmethod
    def load_pretrained(cls, section: Mapping[str, Any]) -> Self:
        """The model of a section with the weights that it starts from, before `set_up`."""
        if section.get("pretrained"):
            model = cls.without_weights(section)
            folder = fetch(section["pretrained"], key="model.pretrained")
            give_memory(model)
            load_weights_into(model, folder)
            return model
        build: Any = cls  # every family takes both
        return build(
            config=values(section, cls.SHAPE),
            tokenizer=tokenizer_path(section),
            **values(section, cls.OPTIONS),
        )

    @classmethod
    def from_pretrained(cls, model_type: str) -> Self:
        """The model of a type's YAML file, such as ``micro``; the name is LAVIS's.

        Raises:
            UserError: the family has no such type.
        """
        return cls.from_config(defaults_of(cls.PRETRAINED_MODEL_CONFIG_DICT, model_type))

    @classmethod
    def default_config_path(cls, model_type: str) -> str:
        """The YAML file of a type; see `from_pretrained`."""
        return default_path(cls.PRETRAINED_MODEL_CONFIG_DICT, model_type)

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device

    # What a family provides

    @classmethod
    def without_weights(cls, section: Mapping[str, Any]) -> Self:
        """The model of a section that names weights, on the meta device; no weights are fetched."""
        raise NotImplementedError

    def vision_features(self, images: Tensor) -> Tensor:
        """Patch features [B, P, V] of images [B, 3, H, W] of the right size."""
        raise NotImplementedError

    def image_tokens(self, features: Tensor, questions: Sequence[str]) -> Tensor:
        """What the language model sees of each image [B, Q, D], given its question."""
        raise NotImplementedError

    def processor(self, mean: Sequence[float], std: Sequence[float]) -> Any:
        """transformers' processor that goes with an exported model: same tokens, same pixels.

        Args:
            mean: Of each colour channel, as the image processor subtracts it.
            std: Of each colour channel.
        """
        raise NotImplementedError

    def unread(self) -> Sequence[nn.Module]:
        """Modules whose output reaches no image token; they are never trained."""
        return ()

    def prompts(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids after the image tokens: the end of each text within its frame."""
        head, tail = self.frame
        room = self.max_txt_len - len(head) - len(tail)
        return [[*head, *ids[max(0, len(ids) - room) :], *tail] for ids in self.ids(texts)]

    def framed(self, texts: Sequence[str]) -> list[list[int]]:
        """`prompts` without their limit."""
        head, tail = self.frame
        return [[*head, *ids, *tail] for ids in self.ids(texts)]

    def remaining(self, texts: Sequence[str]) -> list[str]:
        """Of each text the end that `prompts` leaves: what the model reads."""
        room = self.max_txt_len - sum(map(len, self.frame))
        return [end_of(self.tokenizer, text, room) for text in texts]

    # What a family calls

    def build_language_model(self, config: Any) -> Any:
        """The language model of a transformers config, with the options of this model.

        Raises:
            UserError: see `ealign_plugin.models.language_model.build_language_model`.
        """
        return build_language_model(self, config)

    def set_precision(self) -> None:
        """Give the parameters of language model and image encoder their type; buffers keep theirs."""
        for part, dtype in self.dtypes.items():
            for name in self.PARTS[part]:
                for parameter in self.get_submodule(name).parameters():
                    parameter.data = parameter.data.to(dtype)

    def set_up(self, section: Mapping[str, Any]) -> None:
        """After the weights are in: freeze what isn't trained, and load the finetuned weights, by config."""
        trainable = section.get("trainable") or "all"
        self.identity = {"reads": self.reads}
        if kind := section.get("quantize"):
            quantize_language_model(self, kind, trainable)
        if section.get("trainable"):
            trained = set_trainable(self, trainable, lora_options(section.get("lora")))
            base = Path(section.get("pretrained") or section.get("model_type", "")).name
            self.identity |= checkpoint_metadata(arch=section.get("arch", ""), base=base, trained=trained)
            for parameter in self.parameters():
                if parameter.requires_grad:  # in 8 or 11 bits, most steps would round to nothing
                    parameter.data = parameter.data.float()
        for module in self.unread():  # DistributedDataParallel waits for every gradient that is required
            module.requires_grad_(False)
        if section.get("load_finetuned"):
            self.load_checkpoint(section.get("finetuned") or "")

    # Images

    def encode_images(self, images: Tensor) -> Tensor:
        """Features [B, P, V] of images [B, 3, H, W]: compute once, hand to every later call.

        Raises:
            UserError: the images have another size than the model's; its encoder would read them as a part.
        """
        return encode_images(self, images)

    # Training

    def forward(self, samples: Mapping[str, Any]) -> dict[str, Tensor]:
        """The loss of a batch.

        Returns:
            ``loss`` (scalar), ``weight`` (of how many target tokens or examples it is the mean),
            ``loss_<task>`` (mean over the task's target tokens, detached) and ``tokens`` (number of text
            tokens that the language model read).
        """
        return loss_of(self, samples)

    # Inference

    def score(
        self,
        features: Tensor,
        prefix: str,
        candidates: Sequence[str],
        answers: Sequence[str],
        *,
        question: str | None = None,
        batch_tokens: int = 16_384,
    ) -> Tensor:
        """Log-probability of each answer after each candidate, for one image.

        Args:
            features: The image's features from `encode_images` [1, P, V].
            prefix: What all prompts begin with.
            candidates: What they go on with; the prompt is ``prefix + candidate``. A candidate that is too
                long loses words at its beginning, so that the prefix stays whole.
            answers: The answers to compare.
            question: What the image tokens depend on where ``reads`` is ``question``; the prefix where None.
            batch_tokens: Largest number of tokens (padding included) in one forward.

        Returns:
            Float [n_candidates, n_answers]: the sum over the answer's tokens of their log-probabilities.
        """
        return score_answers(
            self, features, prefix, candidates, answers, question=question, batch_tokens=batch_tokens
        )

    def generate(
        self,
        samples: Mapping[str, Any],
        use_nucleus_sampling: bool = False,
        num_beams: int = 5,
        max_length: int = 64,
        min_length: int = 1,
        top_p: float = 0.9,
        repetition_penalty: float = 1.0,
        length_penalty: float = 1.0,
        num_captions: int = 1,
        temperature: float = 1.0,
    ) -> list[str]:
        """Answers to the instructions, with LAVIS's arguments.

        Args:
            samples: ``image`` [B, 3, H, W] (or ``features`` from `encode_images`) and ``instruction``
                (LAVIS's ``prompt`` is understood too); ``question`` optional.
            use_nucleus_sampling: Sample from the top ``top_p`` of the probability instead of beam search.
            num_beams: Width of the beam.
            max_length: Most new tokens.
            min_length: Fewest new tokens.
            top_p: See ``use_nucleus_sampling``.
            repetition_penalty: Divides the logits of tokens already written.
            length_penalty: Exponent of the length in beam search.
            num_captions: Answers for each example.
            temperature: Divides the logits when sampling.

        Returns:
            ``B × num_captions`` strings.
        """
        return write_answers(
            self,
            samples,
            use_nucleus_sampling=use_nucleus_sampling,
            num_beams=num_beams,
            max_length=max_length,
            min_length=min_length,
            top_p=top_p,
            repetition_penalty=repetition_penalty,
            length_penalty=length_penalty,
            num_captions=num_captions,
            temperature=temperature,
        )

    # Text

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of texts, nothing added."""
        # transformers' tokenizers raise IndexError on an empty list.
        return self.tokenizer(list(texts), add_special_tokens=False)["input_ids"] if texts else []

    def targets(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids that are learnt: the beginning of each text, and the token that ends it."""
        eos = self.tokenizer.eos_token_id
        return [[*ids[: self.max_output_txt_len - 1], eos] for ids in self.ids(texts)]

    def count_tokens(self, text: str) -> int:
        """Tokens of the language model that a text takes, nothing added."""
        return len(self.ids([text])[0])

    # Weights

    def load_checkpoint(self, url_or_filename: str | Path) -> None:
        """Fill the model from a safetensors file that this project's runner wrote; the name is LAVIS's.

        Raises:
            UserError: the file is missing, is none, or belongs to another model or size.
        """
        load_checkpoint(self, url_or_filename)

    def trainable_state(self) -> dict[str, Tensor]:
        """The weights to save: what is not frozen, tied ones once."""
        saved = set(trainable_names(self))
        others = {name for name, _ in self.named_parameters(remove_duplicate=False)} - saved
        return {name: value for name, value in self.state_dict().items() if name not in others}
