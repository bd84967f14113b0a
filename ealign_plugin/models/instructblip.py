"""InstructBLIP (arXiv 2305.06500) on transformers' modules, as a LAVIS model.

::

    image [3, H, W] ─ vision_model ─ patches [P, V] ─┐
                                                     ├─ qformer ─ [Q, F] ─ language_projection ─ [Q, D]
    question ─ tokens ───────────────────────────────┘                                            │
    instruction, target ─ tokens ─ embeddings [T, D] ─────────────────────────── [Q + T, D] ─ language_model

The submodules bear the names that transformers' `InstructBlipForConditionalGeneration` gives them, so
weights move between the two; the arithmetic between them is ours, because the class's own `forward`
changed its meaning over the versions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lavis.models.base_model import BaseModel
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn
from torch.nn import functional as F

from ealign_plugin.errors import UserError
from ealign_plugin.host.registration import registered
from ealign_plugin.models.batching import Tokens, by_length, pad

CONFIGS = Path(__file__).parent.parent / "configs"


@registered("model", "ealign_instructblip")
class InstructBlip(BaseModel):
    """InstructBLIP for training and for two-pass captioning.

    A batch is a dict: ``image`` float [B, 3, H, W]; lists of B strings ``instruction``, ``target``,
    ``question`` (what the Q-Former reads; the instruction where it is missing), ``task`` and ``key``.
    Examples with the same ``key`` show the same image: it is encoded once.

    Args:
        config: transformers' `InstructBlipConfig`, or its fields ``vision_config``, ``qformer_config``,
            ``text_config``, ``num_query_tokens``.
        tokenizer: Path of the language model's ``tokenizer.json``; the Q-Former reads with it too.
        max_txt_len: Longest instruction in tokens; of a longer one the beginning is dropped.
        max_output_txt_len: Longest target in tokens; of a longer one the end is dropped.
        max_question_len: Longest question of the Q-Former in tokens; the end is dropped.
        loss_reduction: ``token``: the mean over all target tokens, as InstructBLIP; ``example``: the mean
            over examples of their tokens' means, so that a one-word answer weighs as much as a caption.
        padding_waste: Examples of a batch run together while at most this share of their tokens is padding.
    """

    PRETRAINED_MODEL_CONFIG_DICT = {"micro": str(CONFIGS / "models" / "ealign_instructblip_micro.yaml")}

    def __init__(
        self,
        *,
        config: Mapping[str, Any],
        tokenizer: str | Path,
        max_txt_len: int = 512,
        max_output_txt_len: int = 128,
        max_question_len: int = 64,
        loss_reduction: str = "token",
        padding_waste: float = 0.15,
    ) -> None:
        super().__init__()
        from tokenizers import Tokenizer
        from transformers import (
            AutoModelForCausalLM,
            InstructBlipConfig,
            InstructBlipQFormerModel,
            InstructBlipVisionModel,
            PreTrainedTokenizerFast,
        )

        if loss_reduction not in ("token", "example"):
            raise UserError(f"model.loss_reduction: {loss_reduction!r} found; 'token' or 'example' expected")
        if not Path(tokenizer).is_file():
            raise UserError(f"model.tokenizer: {tokenizer} is missing; name a folder with a tokenizer.json")
        self.config = config if isinstance(config, InstructBlipConfig) else InstructBlipConfig(**config)
        backend = Tokenizer.from_file(str(tokenizer))
        self.tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=backend,
            bos_token="<s>",
            eos_token="</s>",
            pad_token="<pad>",
            # Else transformers overrules the file, and a name that begins a text is other tokens than inside.
            add_prefix_space=getattr(backend.pre_tokenizer, "add_prefix_space", False),
            split_special_tokens=True,  # an article that spells "</s>" ends nothing
        )
        for part in ("text_config", "qformer_config"):
            if (size := getattr(self.config, part).vocab_size) < len(self.tokenizer):
                raise UserError(
                    f"model.{part}.vocab_size: {size} found, at least {len(self.tokenizer)} expected, the "
                    "tokenizer's; raise it or name another model.tokenizer"
                )
        if max_question_len > (places := self.config.qformer_config.max_position_embeddings):
            raise UserError(
                f"model.max_question_len: {max_question_len} found, at most "
                f"model.qformer_config.max_position_embeddings ({places}) expected; lower it"
            )
        self.vision_model = InstructBlipVisionModel(self.config.vision_config)
        self.qformer = InstructBlipQFormerModel(self.config.qformer_config)
        self.query_tokens = nn.Parameter(
            torch.randn(1, self.config.num_query_tokens, self.config.qformer_config.hidden_size)
            * self.config.qformer_config.initializer_range
        )
        self.language_projection = nn.Linear(
            self.config.qformer_config.hidden_size, self.config.text_config.hidden_size
        )
        self.language_model = AutoModelForCausalLM.from_config(self.config.text_config)
        self.max_txt_len, self.max_output_txt_len = max_txt_len, max_output_txt_len
        self.max_question_len = max_question_len
        self.loss_reduction, self.padding_waste = loss_reduction, padding_waste

    @classmethod
    def from_config(cls, cfg: DictConfig) -> InstructBlip:
        """Build from a LAVIS model config (see ``configs/models/ealign_instructblip_micro.yaml``)."""
        values: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)
        tokenizer = CONFIGS / "tokenizers" / values["tokenizer"] / "tokenizer.json"
        model = cls(
            config={name: values[name] for name in _SHAPE},
            tokenizer=tokenizer,
            **{name: values[name] for name in _OPTIONS},
        )
        if values.get("load_finetuned"):
            model.load_checkpoint_from_config(cfg)
        return model

    # Images

    def encode_images(self, images: Tensor) -> Tensor:
        """Patch features [B, P, V] of images [B, 3, H, W]: compute once, hand to every later call.

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
        return self.vision_model(pixel_values=images).last_hidden_state

    def image_tokens(self, features: Tensor, questions: Sequence[str]) -> Tensor:
        """What the language model sees of each image [B, Q, D], given its question."""
        bos = self.tokenizer.bos_token_id
        rows = [Tokens([bos, *ids][: self.max_question_len]) for ids in self._ids(questions)]
        batch = pad(rows, self.tokenizer.pad_token_id, features.device)
        queries = self.query_tokens.expand(len(rows), -1, -1)
        output = self.qformer(
            input_ids=batch.ids,
            attention_mask=torch.cat([batch.mask.new_ones(queries.shape[:2]), batch.mask], dim=1),
            query_embeds=queries,
            encoder_hidden_states=features,
            encoder_attention_mask=features.new_ones(features.shape[:2], dtype=torch.long),
        )[0]
        return self.language_projection(output[:, : queries.shape[1]])

    # Training

    def forward(self, samples: Mapping[str, Any]) -> dict[str, Tensor]:
        """The loss of a batch.

        Returns:
            ``loss`` (scalar), ``loss_<task>`` (mean over the task's target tokens, detached) and
            ``tokens`` (number of tokens that the language model read).
        """
        images = self._image_tokens_of(samples)
        rows = [
            Tokens(prompt, target)
            for prompt, target in zip(
                self._prompts(samples["instruction"]), self._targets(samples["target"]), strict=True
            )
        ]
        # Sums stay float32 under autocast, where the image tokens are of half precision.
        sums = torch.zeros(len(rows), device=images.device)
        counts = torch.zeros_like(sums)
        for group in by_length([len(row) for row in rows], self.padding_waste):
            batch = pad([rows[i] for i in group], self.tokenizer.pad_token_id, images.device)
            logits, labels, owner = self._target_logits(images[group], batch.ids, batch.mask, batch.labels)
            losses = F.cross_entropy(logits.float(), labels, reduction="none")
            index = torch.tensor(group, device=images.device)
            sums = sums.index_add(0, index[owner], losses)
            counts = counts.index_add(0, index[owner], torch.ones_like(losses))
        if self.loss_reduction == "token":
            loss = sums.sum() / counts.sum()
        else:
            loss = (sums / counts).mean()
        output = {"loss": loss, "tokens": counts.new_tensor(sum(map(len, rows)))}
        tasks = samples.get("task") or ["caption"] * len(rows)
        for task in sorted(set(tasks)):
            own = torch.tensor([t == task for t in tasks], device=images.device)
            output[f"loss_{task}"] = (sums[own].sum() / counts[own].sum()).detach()
        return output

    def _target_logits(
        self, images: Tensor, ids: Tensor, mask: Tensor, labels: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Logits at the positions that predict a target token, these tokens, and their rows."""
        hidden = self._hidden(images, ids, mask)[:, images.shape[1] - 1 : -1]
        wanted = labels >= 0
        logits = self.language_model.lm_head(hidden[wanted])
        owner = torch.arange(len(ids), device=ids.device)[:, None].expand_as(labels)[wanted]
        return logits, labels[wanted], owner

    def _hidden(self, images: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """Last hidden states [B, Q + T, D] of image tokens followed by text (padded on the right)."""
        embeds = self.language_model.get_input_embeddings()(ids)
        return self.language_model.model(
            inputs_embeds=torch.cat([images.to(embeds.dtype), embeds], dim=1),
            attention_mask=torch.cat([mask.new_ones(images.shape[:2]), mask], dim=1),
            use_cache=False,
        ).last_hidden_state

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
            candidates: What they go on with; the prompt is ``prefix + candidate``.
            answers: The answers to compare.
            question: What the Q-Former reads; the prefix where None.
            batch_tokens: Largest number of tokens (padding included) in one forward.

        Returns:
            Float [n_candidates, n_answers]: the sum over the answer's tokens of their log-probabilities.
        """
        image = self.image_tokens(features, [prefix if question is None else question])
        replies = self._ids(answers)
        prompts = self._prompts([prefix + candidate for candidate in candidates])
        one_token = all(len(reply) == 1 for reply in replies)
        if one_token:  # the row of a candidate answers them all
            rows = [Tokens(prompt) for prompt in prompts]
        else:
            rows = [Tokens(prompt, reply) for prompt in prompts for reply in replies]
        scores = torch.zeros(len(rows), len(replies) if one_token else 1, device=image.device)
        most = batch_tokens // (image.shape[1] + max(map(len, rows), default=1)) or 1
        for group in by_length([len(row) for row in rows], self.padding_waste, most):
            batch = pad([rows[i] for i in group], self.tokenizer.pad_token_id, image.device)
            images = image.expand(len(group), -1, -1)
            if one_token:
                hidden = self._hidden(images, batch.ids, batch.mask)[:, images.shape[1] :]
                last = hidden[torch.arange(len(group)), batch.mask.sum(1) - 1]
                log = self.language_model.lm_head(last).float().log_softmax(-1)
                values = log[:, [reply[0] for reply in replies]]
            else:
                logits, labels, owner = self._target_logits(images, batch.ids, batch.mask, batch.labels)
                each = logits.float().log_softmax(-1).gather(1, labels[:, None])[:, 0]
                values = each.new_zeros(len(group)).index_add(0, owner, each)[:, None]
            scores[group] = values
        return scores.reshape(len(candidates), len(answers))

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
        embed = self.language_model.get_input_embeddings()
        rows = [Tokens(prompt) for prompt in self._prompts(instructions)]
        answers: list[list[str]] = [[] for _ in rows]
        # Writing costs a forward a token whatever the width, so padding is cheap here.
        for group in by_length([len(row) for row in rows], 0.5):
            batch = pad([rows[i] for i in group], self.tokenizer.pad_token_id, images.device, left=True)
            # Masked padding between image and text takes no position, so a row reads the same in any batch.
            embeds = torch.cat([images[group], embed(batch.ids).to(images.dtype)], dim=1)
            mask = torch.cat([batch.mask.new_ones(images[group].shape[:2]), batch.mask], dim=1)
            output = self.language_model.generate(
                inputs_embeds=embeds,
                attention_mask=mask,
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

    def _image_tokens_of(self, samples: Mapping[str, Any]) -> Tensor:
        """Image tokens [B, Q, D]; each distinct image is encoded once, each (image, question) read once."""
        questions = samples.get("question") or samples["instruction"]
        questions = [questions] * len(samples["instruction"]) if isinstance(questions, str) else questions
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
        tokens = self.image_tokens(features[[image for image, _ in pairs]], [text for _, text in pairs])
        return tokens[owner]

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        # transformers' tokenizers raise IndexError on an empty list.
        return self.tokenizer(list(texts), add_special_tokens=False)["input_ids"] if texts else []

    def _prompts(self, texts: Sequence[str]) -> list[list[int]]:
        bos = self.tokenizer.bos_token_id
        return [[bos, *ids[max(0, len(ids) - self.max_txt_len + 1) :]] for ids in self._ids(texts)]

    def _targets(self, texts: Sequence[str]) -> list[list[int]]:
        eos = self.tokenizer.eos_token_id
        return [[*ids[: self.max_output_txt_len - 1], eos] for ids in self._ids(texts)]

    # Weights

    def load_checkpoint(self, url_or_filename: str | Path) -> None:
        """Fill the model from a safetensors file that this project's runner wrote.

        Raises:
            UserError: the file is missing, is none, or belongs to another model or size.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        path = Path(url_or_filename)
        if not path.is_file():
            raise UserError(
                f"checkpoint {str(url_or_filename)!r}: no such file; give the path of a .safetensors file"
            )
        try:
            weights = load_file(path)
        except (SafetensorError, OSError) as error:
            raise UserError(f"{path}: it is no safetensors file ({error})") from None
        own = dict(self.state_dict())
        strange = sorted(set(weights) - set(own))
        other = [n for n, w in weights.items() if n in own and w.shape != own[n].shape]
        missing = sorted(set(own) - set(weights) - set(self._tied()))
        if strange or other or missing:
            name = (strange + other + missing)[0]
            raise UserError(
                f"{path}: a checkpoint of another model ({len(missing)} weights missing, {len(strange)} "
                f"unknown, {len(other)} of another shape; the first is {name}); use the model.model_type it "
                "was trained with"
            )
        self.load_state_dict(weights, strict=False)

    def trainable_state(self) -> dict[str, Tensor]:
        """The weights to save, tied ones once."""
        tied = set(self._tied())
        return {name: value for name, value in self.state_dict().items() if name not in tied}

    def _tied(self) -> Iterator[str]:
        if self.config.text_config.tie_word_embeddings:
            yield "language_model.lm_head.weight"


_SHAPE = ("vision_config", "qformer_config", "text_config", "num_query_tokens")
_OPTIONS = ("max_txt_len", "max_output_txt_len", "max_question_len", "loss_reduction", "padding_waste")
