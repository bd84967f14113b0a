"""What the model families have in common: text to tokens, the loss of a batch, scoring and writing.

A family is one file with a subclass of `NewsModel`; see there what it has to provide.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ealign_plugin.errors import UserError
from ealign_plugin.models.attention.generation import generate_with_prefix
from ealign_plugin.models.attention.interface import can_share, replace_attention
from ealign_plugin.models.attention.packed import bins, can_pack, decode, pack
from ealign_plugin.models.attention.scoring import score_with_prefix
from ealign_plugin.models.batching import Tokens, by_length, pad
from ealign_plugin.models.lora import lora_options
from ealign_plugin.models.meta import give_memory
from ealign_plugin.models.quantization import quantize_language_model
from ealign_plugin.models.section import CONFIGS, default_path, defaults_of, plain, values
from ealign_plugin.models.trainable import set_trainable, trainable_names
from ealign_plugin.models.weights.checkpoint import check_metadata, checkpoint_metadata
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
    ``task`` and ``key``. Examples with the same ``key`` show the same image: it is encoded once.

    A family calls ``super().__init__`` first and then sets or defines:

    - ``config`` (with ``text_config``), ``tokenizer``;
    - ``language_model`` by `build_language_model`: a causal one, or an encoder-decoder such as T5, whose
      encoder reads everything but the target;
    - ``frame``: ids around the text of a prompt, by `frame_of`; or `prompts` and `framed`, where that isn't
      enough;
    - ``before``: ids in front of the image tokens, the same for every prompt; none where it is left out;
    - ``reads``: what the image tokens depend on besides the image: ``question`` (as is), ``instruction``
      (the whole) or ``nothing``;
    - `vision_features` (images → features) and `image_tokens` (features, questions → [B, Q, D]);
    - ``PARTS``: its submodules by part, for the choice of what is trained.

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
        self.recipe: dict[str, str] = {}  # what a checkpoint says of the model it belongs to

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
        tokenizer = CONFIGS / "tokenizers" / section["tokenizer"] / "tokenizer.json"
        build: Any = cls  # every family takes both
        return build(config=values(section, cls.SHAPE), tokenizer=tokenizer, **values(section, cls.OPTIONS))

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

    # What a family calls

    def build_language_model(self, config: Any) -> Any:
        """The language model of a transformers config, with the options of this model.

        Raises:
            UserError: this transformers doesn't know the attention that was asked for, or a T5 is to compute
                in fp16, which it overflows.
        """
        from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

        if config.model_type == "t5" and self.dtypes["llm"] == torch.float16:
            raise UserError("model.dtype: 'fp16' found, which a T5 overflows; 'bf16' or 'fp32' expected")
        if self.batching == "packed" and (config.is_encoder_decoder or not can_pack()):
            self.batching = "groups"
        packed = self.batching == "packed"
        name = "sdpa" if packed else self.attn_implementation
        auto = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
        try:
            model = auto.from_config(config, **({"attn_implementation": name} if name else {}))
            if not replace_attention(model) and packed:
                raise ValueError("its attention cannot be replaced")
        except (ValueError, KeyError, ImportError) as error:
            found = "batching: 'packed'" if packed else f"attn_implementation: {name!r}"
            raise UserError(
                f"model.{found} found, which transformers refuses for a {config.model_type} here "
                f"({' '.join(str(error).split())[:200]}); set it to {'groups' if packed else 'null'}"
            ) from None
        if self.gradient_checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        return model

    def check_length(self, image_length: int) -> None:
        """Refuse lengths that the language model has no positions for; T5 has no such limit.

        Raises:
            UserError: image tokens, longest instruction and longest target together are too long.
        """
        text = self.config.text_config
        places = None if text.is_encoder_decoder else getattr(text, "max_position_embeddings", None)
        longest = len(self.before) + image_length + self.max_txt_len + self.max_output_txt_len
        if places is not None and longest > places:
            raise UserError(
                f"model.max_txt_len: {self.max_txt_len} found; with {len(self.before) + image_length} image "
                f"tokens and max_output_txt_len {self.max_output_txt_len} that makes {longest}, at most "
                f"text_config.max_position_embeddings ({places}) expected; lower one of them"
            )

    def set_precision(self) -> None:
        """Give the parameters of language model and image encoder their type; buffers keep theirs."""
        for part, dtype in self.dtypes.items():
            for name in self.PARTS[part]:
                for parameter in self.get_submodule(name).parameters():
                    parameter.data = parameter.data.to(dtype)

    def set_up(self, section: Mapping[str, Any]) -> None:
        """After the weights are in: freeze what isn't trained, and load the finetuned weights, by config."""
        trainable = section.get("trainable") or "all"
        self.recipe = {"reads": self.reads}
        if kind := section.get("quantize"):
            quantize_language_model(self, kind, trainable)
        if section.get("trainable"):
            trained = set_trainable(self, trainable, lora_options(section.get("lora")))
            base = Path(section.get("pretrained") or section.get("model_type", "")).name
            self.recipe |= checkpoint_metadata(arch=section.get("arch", ""), base=base, trained=trained)
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
        size = self.config.vision_config.image_size
        if images.shape[-2:] != (size, size):
            found = "×".join(map(str, images.shape[-2:]))
            raise UserError(
                f"image: {found} pixels found, {size}×{size} expected; set image_size of the vis_processor "
                "to that of model.vision_config"
            )
        trained = any(
            parameter.requires_grad
            for name in self.PARTS["vision"]
            for parameter in self.get_submodule(name).parameters()
        )
        with torch.set_grad_enabled(trained and torch.is_grad_enabled()):
            return self.vision_features(images)

    def _image_tokens_of(self, samples: Mapping[str, Any]) -> Tensor:
        """Image tokens [B, Q, D]; each distinct image is encoded once, each (image, question) read once."""
        questions = (self.reads == "question" and samples.get("question")) or samples["instruction"]
        questions = [questions] * len(samples["instruction"]) if isinstance(questions, str) else questions
        if self.reads == "nothing":
            questions = [""] * len(questions)
        keys = samples.get("key") or range(len(questions))
        first: dict[Any, int] = {}
        for index, key in enumerate(keys):
            first.setdefault(key, index)
        place = {key: number for number, key in enumerate(first)}
        features = samples.get("features")
        if features is None:
            features = self.encode_images(samples["image"][list(first.values())])
        else:
            features = features[list(first.values())]
        pairs: dict[tuple[int, str], int] = {}
        owner = [
            pairs.setdefault((place[key], question), len(pairs))
            for key, question in zip(keys, questions, strict=True)
        ]
        images = torch.tensor([image for image, _ in pairs], device=features.device)
        # Not by [...]: on a CPU its backward adds up what examples share in an order that threads race for.
        tokens = self.image_tokens(features.index_select(0, images), [text for _, text in pairs])
        return tokens.index_select(0, torch.tensor(owner, device=tokens.device))

    # Training

    def forward(self, samples: Mapping[str, Any]) -> dict[str, Tensor]:
        """The loss of a batch.

        Returns:
            ``loss`` (scalar), ``weight`` (of how many target tokens or examples it is the mean),
            ``loss_<task>`` (mean over the task's target tokens, detached) and ``tokens`` (number of text
            tokens that the language model read).
        """
        images = self._image_tokens_of(samples)
        rows = [
            Tokens(prompt, target)
            for prompt, target in zip(
                self.prompts(samples["instruction"]), self.targets(samples["target"]), strict=True
            )
        ]
        # Sums stay float32 under autocast, where the image tokens are of half precision.
        sums = torch.zeros(len(rows), device=images.device)
        counts = torch.zeros_like(sums)
        for group in self._forwards(rows, len(self.before) + images.shape[1], self.max_tokens):
            logits, labels, owner = self._target_logits(images[group], [rows[i] for i in group])
            losses = F.cross_entropy(logits.float(), labels, reduction="none")
            index = torch.tensor(group, device=images.device)
            sums = sums.index_add(0, index[owner], losses)
            counts = counts.index_add(0, index[owner], torch.ones_like(losses))
        if self.loss_reduction == "token":
            loss, weight = sums.sum() / counts.sum(), counts.sum()
        else:
            loss, weight = (sums / counts).mean(), counts.new_tensor(len(rows))
        tokens = counts.new_tensor(sum(len(self.before) + len(row) for row in rows))
        output = {"loss": loss, "weight": weight, "tokens": tokens}
        tasks = samples.get("task") or ["caption"] * len(rows)
        for task in sorted(set(tasks)):
            own = torch.tensor([t == task for t in tasks], device=images.device)
            output[f"loss_{task}"] = (sums[own].sum() / counts[own].sum()).detach()
        return output

    def _forwards(self, rows: Sequence[Tokens], start: int, max_tokens: int | None) -> list[list[int]]:
        """Numbers of the rows that run together; ``start`` tokens come before each."""
        lengths = [len(row) for row in rows]
        if self.batching == "packed":
            return bins([start + length for length in lengths], max_tokens)
        most = None
        if max_tokens is not None:
            most = max(1, max_tokens // (start + max(lengths, default=0)))
        return by_length(lengths, 1.0 if self.batching == "padded" else self.padding_waste, most)

    def _target_logits(self, images: Tensor, rows: Sequence[Tokens]) -> tuple[Tensor, Tensor, Tensor]:
        """Logits at the positions that predict a target token, these tokens, and their rows."""
        if self.language_model.config.is_encoder_decoder:
            return self._decoded_logits(images, rows)
        head = self.language_model.get_output_embeddings()
        if self.batching == "packed":
            embed = self.language_model.get_input_embeddings()
            ids = [*self.before, *(token for row in rows for token in row.prompt + row.target)]
            texts = embed(torch.tensor(ids, dtype=torch.long, device=images.device))
            before, texts = texts.split([len(self.before), len(texts) - len(self.before)])
            packed = pack(before, images.to(texts.dtype), texts, rows)
            hidden = decode(partial(self._run, self.language_model.get_decoder()), packed)
            return head(hidden[packed.places]), packed.labels, packed.owner
        batch = pad(rows, self.tokenizer.pad_token_id, images.device)
        hidden = self._hidden(images, batch.ids, batch.mask)[:, len(self.before) + images.shape[1] - 1 : -1]
        wanted = batch.labels >= 0
        return head(hidden[wanted]), batch.labels[wanted], _owner(wanted)

    def _decoded_logits(self, images: Tensor, rows: Sequence[Tokens]) -> tuple[Tensor, Tensor, Tensor]:
        """`_target_logits` of an encoder-decoder: the encoder reads the prompts, the decoder the targets."""
        fill = self.tokenizer.pad_token_id
        prompts = pad([Tokens(row.prompt) for row in rows], fill, images.device)
        targets = pad([Tokens([], row.target) for row in rows], fill, images.device)
        embeds, mask = self.embeds(images, prompts.ids, prompts.mask)
        start = targets.ids.new_full((len(rows), 1), self.language_model.config.decoder_start_token_id)
        logits = self._run(
            self.language_model,
            inputs_embeds=embeds,
            attention_mask=mask,
            decoder_input_ids=torch.cat([start, targets.ids], dim=1),
            use_cache=False,
        ).logits[:, :-1]
        wanted = targets.labels >= 0
        return logits[wanted], targets.labels[wanted], _owner(wanted)

    def _next_logits(self, images: Tensor, rows: Sequence[Tokens]) -> Tensor:
        """Logits [R, V] of the token after each prompt."""
        fill = self.tokenizer.pad_token_id
        if self.batching == "packed" or self.language_model.config.is_encoder_decoder:
            return self._target_logits(images, [Tokens(row.prompt, [fill]) for row in rows])[0]
        batch = pad(rows, fill, images.device)
        hidden = self._hidden(images, batch.ids, batch.mask)[:, len(self.before) + images.shape[1] :]
        last = hidden[torch.arange(len(rows)), batch.mask.sum(1) - 1]
        return self.language_model.get_output_embeddings()(last)

    def _hidden(self, images: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """Last hidden states [B, k + Q + T, D] of ``before``, image tokens and text (padded on the right)."""
        embeds, mask = self.embeds(images, ids, mask)
        decoder = self.language_model.get_decoder()
        return self._run(
            decoder, inputs_embeds=embeds, attention_mask=mask, use_cache=False
        ).last_hidden_state

    def _run(self, module: nn.Module, **inputs: Any) -> Any:
        return compiled_call()(module, **inputs) if self.compiled else module(**inputs)

    def embeds(self, images: Tensor, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings [B, k + Q + T, D] and their mask: ``before``, image tokens [B, Q, D], ids [B, T]."""
        embed = self.language_model.get_input_embeddings()
        text = embed(ids)
        parts = [images.to(text.dtype), text]
        if self.before:
            before = embed(ids.new_tensor(self.before))
            parts.insert(0, before.expand(len(ids), -1, -1))
        seen = mask.new_ones(len(ids), len(self.before) + images.shape[1])
        return torch.cat(parts, dim=1), torch.cat([seen, mask], dim=1)

    # Inference

    @torch.no_grad()
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
        image = self.image_tokens(features, [prefix if question is None else question])
        replies = self.ids(answers)
        texts = [prefix + candidate for candidate in self._fitting(prefix, candidates)]
        prompts = self.prompts(texts)
        if self.reads != "instruction" and can_share(self.language_model):
            return score_with_prefix(self, image, prompts, replies, batch_tokens)
        one_token = all(len(reply) == 1 for reply in replies)
        if one_token:  # the row of a candidate answers them all
            rows = [Tokens(prompt) for prompt in prompts]
        else:
            rows = [Tokens(prompt, reply) for prompt in prompts for reply in replies]
            texts = [text for text in texts for _ in replies]
        scores = torch.zeros(len(rows), len(replies) if one_token else 1, device=image.device)
        for group in self._forwards(rows, len(self.before) + image.shape[1], batch_tokens):
            images = image.expand(len(group), -1, -1)
            if self.reads == "instruction":
                seen = features.expand(len(group), -1, -1)
                images = self.image_tokens(seen, [texts[i] for i in group])
            if one_token:
                log = self._next_logits(images, [rows[i] for i in group]).float().log_softmax(-1)
                values = log[:, [reply[0] for reply in replies]]
            else:
                logits, labels, owner = self._target_logits(images, [rows[i] for i in group])
                each = logits.float().log_softmax(-1).gather(1, labels[:, None])[:, 0]
                values = each.new_zeros(len(group)).index_add(0, owner, each)[:, None]
            scores[group] = values
        return scores.reshape(len(candidates), len(answers))

    def _fitting(self, prefix: str, candidates: Sequence[str]) -> list[str]:
        """The candidates; of one that makes its prompt too long, as many of its last words as fit."""

        def length(candidate: str) -> int:
            return len(self.framed([prefix + candidate])[0])

        fitting = []
        for candidate in candidates:
            # A token is a byte at least, so most candidates are short beyond doubt.
            doubt = len((prefix + candidate).encode()) > self.max_txt_len // 2
            if doubt and length(candidate) > self.max_txt_len:
                words = candidate.split()
                counts = range(1, len(words))
                most = bisect_right(counts, self.max_txt_len, key=lambda n: length(" ".join(words[-n:])))
                candidate = " ".join(words[-most:]) if most else candidate  # a single word is cut by tokens
            fitting.append(candidate)
        return fitting

    @torch.no_grad()
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
        size = len(samples["features"] if samples.get("features") is not None else samples["image"])
        prompt = samples.get("instruction", samples.get("prompt", ""))
        instructions = [prompt] * size if isinstance(prompt, str) else list(prompt)
        images = self._image_tokens_of({**samples, "instruction": instructions})
        rows = [Tokens(prompt) for prompt in self.prompts(instructions)]
        answers: list[list[str]] = [[] for _ in rows]
        # A decoder goes on at the right end. T5's encoder counts distances over padding too.
        left = not self.language_model.config.is_encoder_decoder
        # Writing costs a forward a token whatever the width, so padding is cheap here.
        for group in by_length([len(row) for row in rows], 0.5):
            batch = pad([rows[i] for i in group], self.tokenizer.pad_token_id, images.device, left=left)
            # Masked padding between image and text takes no position, so a row reads the same in any batch.
            embeds, mask = self.embeds(images[group], batch.ids, batch.mask)
            output = generate_with_prefix(
                self.language_model,
                embeds,
                mask,
                do_sample=use_nucleus_sampling,
                num_beams=1 if use_nucleus_sampling else num_beams,
                max_new_tokens=max_length,
                min_new_tokens=min_length,
                repetition_penalty=repetition_penalty,
                num_return_sequences=num_captions,
                pad_token_id=self.tokenizer.pad_token_id,
                eos_token_id=self.tokenizer.eos_token_id,
                bos_token_id=self.tokenizer.bos_token_id,
                # transformers would take the 50 likeliest only.
                **({"top_p": top_p, "top_k": 0, "temperature": temperature} if use_nucleus_sampling else {}),
                **({"length_penalty": length_penalty} if num_beams > 1 and not use_nucleus_sampling else {}),
            )
            texts = self.tokenizer.batch_decode(output, skip_special_tokens=True)
            for position, i in enumerate(group):
                answers[i] = texts[position * num_captions : (position + 1) * num_captions]
        return [answer.strip() for row in answers for answer in row]

    # Text

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of texts, nothing added."""
        # transformers' tokenizers raise IndexError on an empty list.
        return self.tokenizer(list(texts), add_special_tokens=False)["input_ids"] if texts else []

    def targets(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids that are learnt: the beginning of each text, and the token that ends it."""
        eos = self.tokenizer.eos_token_id
        return [[*ids[: self.max_output_txt_len - 1], eos] for ids in self.ids(texts)]

    # Weights

    def load_checkpoint(self, url_or_filename: str | Path) -> None:
        """Fill the model from a safetensors file that this project's runner wrote.

        Raises:
            UserError: the file is missing, is none, or belongs to another model or size.
        """
        from safetensors import SafetensorError, safe_open
        from safetensors.torch import load_file

        path = Path(url_or_filename)
        if not path.is_file():
            raise UserError(
                f"checkpoint {str(url_or_filename)!r}: no such file; give the path of a .safetensors file"
            )
        try:
            if self.recipe:
                with safe_open(path, framework="pt") as file:
                    check_metadata(path, file.metadata(), self.recipe)
            weights = load_file(path)
        except (SafetensorError, OSError) as error:
            raise UserError(f"{path}: it is no safetensors file ({error})") from None
        own = dict(self.state_dict())
        strange = sorted(set(weights) - set(own))
        other = [n for n, w in weights.items() if n in own and w.shape != own[n].shape]
        missing = sorted(set(self.trainable_state()) - set(weights))
        if strange or other or missing:
            name = (strange + other + missing)[0]
            raise UserError(
                f"{path}: a checkpoint of another model ({len(missing)} weights missing, {len(strange)} "
                f"unknown, {len(other)} of another shape; the first is {name}); use the model.model_type it "
                "was trained with"
            )
        self.load_state_dict(weights, strict=False)

    def trainable_state(self) -> dict[str, Tensor]:
        """The weights to save: what is not frozen, tied ones once."""
        saved = set(trainable_names(self))
        others = {name for name, _ in self.named_parameters(remove_duplicate=False)} - saved
        return {name: value for name, value in self.state_dict().items() if name not in others}


def _owner(wanted: Tensor) -> Tensor:
    """The row of each position that is wanted [R, T]."""
    return torch.arange(len(wanted), device=wanted.device)[:, None].expand_as(wanted)[wanted]


@cache
def compiled_call() -> Callable[..., Any]:
    """Calls a module; apart from the model, whose weights keep their names and which can be copied."""

    def call(module: nn.Module, **inputs: Any) -> Any:
        return module(**inputs)

    return torch.compile(call, dynamic=True)
