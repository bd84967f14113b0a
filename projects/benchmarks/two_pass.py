"""What sharing saves in two passes: judge the 40 sentences of an article, choose, write the caption.

    ours         pass 1: the image encoded once, what all questions begin with read once, sentences packed;
                 pass 2: features of pass 1, a prompt read once for all beams, images written together
    hf_loop      transformers' InstructBlipForConditionalGeneration, called once for every sentence, then
                 ``generate`` once for an image
    hf_batched   the same, with an image's sentences in one padded batch

All have the same weights, which are random, as the photos and the articles (950 words) are. Pass 1 asks
"yes" or "no" about each sentence; the best ten and the article's beginning, 600 words together, are the
context of pass 2, which writes 20 tokens with 5 beams. Sentences chosen and captions written have to be
identical, else the benchmark fails (in half precision, where rounding decides between equals, it tells).
FLOPs are those of products with weight matrices, and tokens those that enter the language model; both are
counted on the first image, in a round that is not timed. Run it with the environment's Python:
python projects/benchmarks/two_pass.py
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from _options import read_options  # the file beside this one
from torch import Tensor, nn

from ealign_plugin.cli.third_party import silence_third_party_warnings

silence_third_party_warnings()
from omegaconf import OmegaConf  # noqa: E402
from train_step import SHAPES, build  # noqa: E402  the file beside this one

from ealign_plugin.alignment.contexts import Budget, build_context
from ealign_plugin.alignment.selection import Selection, select_sentences  # noqa: E402
from ealign_plugin.models import InstructBlip  # noqa: E402  it imports LAVIS
from ealign_plugin.models.batching import Tokens, pad  # noqa: E402
from ealign_plugin.models.meta import shapes_only
from ealign_plugin.news import NewsSample, Sentence  # noqa: E402

SENTENCES, WORDS, CONTEXT, BEST, BEAMS, NEW = 40, 950, 600, 10, 5, 20
JUDGE = "Does this sentence of the article tell who or what the photo shows? Answer yes or no. Sentence:"
WRITE = "Write the caption of this news photo. Name the people, places and events. Article:"
ANSWERS = ("yes", "no")


@dataclass
class Way:
    """A way to run both passes over all images, and what it made and took."""

    judge: Callable[[Tensor, list[str]], Tensor]
    write: Callable[[Tensor, list[str]], list[list[int]]]
    chosen: list[tuple[int, ...]] = field(default_factory=list)
    captions: list[list[int]] = field(default_factory=list)
    seconds: tuple[float, float] = (0.0, 0.0)


# What is judged


def smol_shape() -> dict[str, Any]:
    """That of the model type ``smol``; its weights come from packages, here they are random."""
    config = OmegaConf.to_container(OmegaConf.load(InstructBlip.default_config_path("smol")).model)
    return {name: config[name] for name in ("vision_config", "qformer_config", "text_config")}


def articles(model: InstructBlip, number: int) -> list[NewsSample]:
    """Of 40 sentences and 950 words; the tokenizer makes about 1.35 tokens of a word, as of English news."""
    draw = random.Random(0)
    words = sorted(word[1:] for word in model.tokenizer.get_vocab() if word[0] == "Ġ" and word[1:].isalpha())
    pieces = sorted(word for word in model.tokenizer.get_vocab() if word.isalpha() and word.isascii())
    made = []
    for index in range(number):
        cuts = [draw.uniform(0.4, 1.6) for _ in range(SENTENCES)]
        lengths = [round(cut * WORDS / sum(cuts)) for cut in cuts]
        lengths[-1] += WORDS - sum(lengths)
        texts = [
            " ".join(draw.choice(words if draw.random() < 0.75 else pieces) for _ in range(length))
            for length in lengths
        ]
        sentences = tuple(Sentence(text, paragraph=0, start=0) for text in texts)
        text = (" ".join(texts),)
        made.append(
            NewsSample(key=f"photo{index}", split="test", caption="", paragraphs=text, sentences=sentences)
        )
    return made


# Ours


def ours(model: InstructBlip) -> Way:
    kept: list[Tensor] = []  # features of the images that were judged

    def judge(image: Tensor, texts: list[str]) -> Tensor:
        with torch.no_grad():
            kept.append(model.encode_images(image))
        return model.score(kept[-1], JUDGE, [f" {text}" for text in texts], ANSWERS)

    def write(images: Tensor, contexts: list[str]) -> list[list[int]]:
        samples = {
            "features": torch.cat(kept[-len(contexts) :]),
            "instruction": [f"{WRITE} {context}" for context in contexts],
            "question": [WRITE] * len(contexts),
        }
        with written(model.language_model) as ids:
            model.generate(samples, num_beams=BEAMS, max_length=NEW, min_length=NEW)
        return ids

    return Way(judge, write)


@contextmanager
def written(language_model: Any) -> Iterator[list[list[int]]]:
    """The new tokens of all that is generated inside; most are no words of the small tokenizer.

    The class is watched, because our way generates on a view of the language model.
    """
    kind = type(language_model)
    generate, ids = kind.generate, []

    def recorded(model: Any, **options: Any) -> Tensor:
        output = generate(model, **options)
        ids.extend(output.tolist())
        return output

    kind.generate = recorded
    try:
        yield ids
    finally:
        del kind.generate  # it is inherited


# transformers


def reference(model: InstructBlip) -> Any:
    """transformers' model with our model's own weights, in the same memory."""
    from transformers import InstructBlipConfig, InstructBlipForConditionalGeneration

    image = len(model.tokenizer)  # an id that no text has
    config = InstructBlipConfig(**{**model.config.to_dict(), "image_token_index": image})
    with shapes_only():
        hf = InstructBlipForConditionalGeneration(config)
    hf.load_state_dict(model.state_dict(), strict=True, assign=True)
    return hf.to(next(model.parameters()).device).eval()


def transformers_way(model: InstructBlip, hf: Any, most: int) -> Way:
    """With so many sentences in a call."""
    fill = model.tokenizer.pad_token_id
    image_tokens = [hf.config.image_token_index] * hf.config.num_query_tokens

    def inputs(images: Tensor, question: str, rows: list[list[int]]) -> dict[str, Tensor]:
        batch = pad([Tokens(image_tokens + row) for row in rows], fill, images.device)
        asked = pad(model.questions([question] * len(rows)), fill, images.device)
        return {
            "pixel_values": images.expand(len(rows), -1, -1, -1),
            "qformer_input_ids": asked.ids,
            "qformer_attention_mask": asked.mask,
            "input_ids": batch.ids,
            "attention_mask": batch.mask,
        }

    @torch.no_grad()
    def judge(image: Tensor, texts: list[str]) -> Tensor:
        rows = model.prompts([f"{JUDGE} {text}" for text in texts])
        answers = [ids[0] for ids in model.ids(ANSWERS)]
        scores = []
        for start in range(0, len(rows), most):
            given = inputs(image, JUDGE, rows[start : start + most])
            logits = hf(**given).logits
            last = given["attention_mask"].sum(1) - 1
            log = logits[torch.arange(len(last)), last].float().log_softmax(-1)
            scores.append(log[:, answers])
        return torch.cat(scores)

    @torch.no_grad()
    def write(images: Tensor, contexts: list[str]) -> list[list[int]]:
        options = {"num_beams": BEAMS, "min_new_tokens": NEW, "max_new_tokens": NEW, "do_sample": False}
        ends = {"pad_token_id": fill, "eos_token_id": model.tokenizer.eos_token_id}
        ids: list[list[int]] = []
        for image, context in zip(images, contexts, strict=True):
            rows = model.prompts([f"{WRITE} {context}"])
            ids += hf.generate(**inputs(image[None], WRITE, rows), **options, **ends)[:, -NEW:].tolist()
        return ids

    return Way(judge, write)


# Both passes


def context_of(sample: NewsSample, scores: Tensor) -> tuple[tuple[int, ...], str]:
    """The sentences chosen by their scores [40, 2], and what pass 2 reads."""
    texts = [sentence.text for sentence in sample.sentences]
    likely = (scores[:, 0] - scores[:, 1]).tolist()
    chosen = select_sentences(likely, threshold=None, top_k=BEST, texts=texts)
    return chosen, build_context(sample, "supplemented", Budget(CONTEXT), Selection(chosen)).text


def run(way: Way, images: Tensor, samples: list[NewsSample], *, write: bool = True) -> None:
    times = [clock(images)]
    scores = [
        way.judge(image[None], [sentence.text for sentence in sample.sentences])
        for image, sample in zip(images, samples, strict=True)
    ]
    times.append(clock(images))
    pairs = [context_of(sample, score) for sample, score in zip(samples, scores, strict=True)]
    way.chosen = [chosen for chosen, _ in pairs]
    if write:
        way.captions = way.write(images, [context for _, context in pairs])
    times.append(clock(images))
    way.seconds = times[1] - times[0], times[2] - times[1]


def clock(images: Tensor) -> float:
    if images.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter()


# Counting


@contextmanager
def counted(module: nn.Module, decoder: nn.Module) -> Iterator[dict[str, float]]:
    """Products of a module's matrices with what it reads, in FLOPs, and the tokens that a decoder reads."""
    counts = {"flops": 0.0, "tokens": 0.0}

    def product(layer: nn.Linear, args: tuple[Tensor, ...], _: Any) -> None:
        counts["flops"] += 2.0 * args[0].numel() * layer.out_features

    def tokens(_: nn.Module, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        hidden = args[0] if args else options["hidden_states"]
        counts["tokens"] += hidden.shape[:2].numel()

    handles = [decoder.layers[0].register_forward_pre_hook(tokens, with_kwargs=True)]
    linear = [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
    handles += [layer.register_forward_hook(product) for layer in linear]
    try:
        yield counts
    finally:
        for handle in handles:
            handle.remove()


def matrix_peak(device: torch.device, dtype: torch.dtype) -> float:
    """FLOPs a second of one large matrix product: what this machine can do at best."""
    size = 8192 if device.type == "cuda" else 2048
    matrix = torch.randn(size, size, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(5):
        start = clock(matrix)
        matrix @ matrix
        best = min(best, clock(matrix) - start)
    return 2.0 * size**3 / best


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument(
        "--shape", default="smol", choices=("tiny", "small", "smol", "7b"), help="7b: in bf16, wants a GPU"
    )
    parser.add_argument("--images", type=int, default=4)
    options = read_options(parser, shape="tiny", images=2)

    device, half = torch.device(options.device), options.shape == "7b"
    torch.manual_seed(0)
    SHAPES["smol"] = smol_shape()
    model = build(options.shape, device).eval()
    for parameter in model.parameters() if half else ():
        parameter.data = parameter.data.bfloat16()
    hf = reference(model)
    pixels = model.config.vision_config.image_size
    noise = torch.Generator().manual_seed(0)
    images = torch.randn(options.images, 3, pixels, pixels, generator=noise).to(device)
    images = images.bfloat16() if half else images
    samples = articles(model, options.images)
    text = [model.prompts([sentence.text])[0] for sample in samples for sentence in sample.sentences]
    name = (
        torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    )
    size = sum(parameter.numel() for parameter in model.language_model.parameters()) / 1e6
    peak = matrix_peak(device, images.dtype)
    print(
        f"{device.type} ({name}, a matrix product reaches {peak / 1e12:.2f} TFLOP/s), language model of "
        f"{size:.0f} million parameters, torch {torch.__version__}; {options.images} images, "
        f"{sum(map(len, text)) / len(text):.1f} tokens a sentence"
    )

    ways = {
        "ours": (model, ours(model)),
        "hf_loop": (hf, transformers_way(model, hf, 1)),
        "hf_batched": (hf, transformers_way(model, hf, SENTENCES)),
    }
    work: dict[str, dict[str, float]] = {}
    memory = dict.fromkeys(ways, 0.0)
    for way_name, (module, way) in ways.items():
        with counted(module, module.language_model.get_decoder()) as work[way_name]:
            run(way, images[:1], samples[:1])
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        # Both ways of transformers write alike, so it is timed once.
        run(way, images, samples, write=way_name != "hf_batched")
        if device.type == "cuda":
            memory[way_name] = torch.cuda.max_memory_allocated() / 2**30
    mine, loop, batched = (ways[name][1] for name in ("ours", "hf_loop", "hf_batched"))
    batched.captions, batched.seconds = loop.captions, (batched.seconds[0], loop.seconds[1])

    for way_name, (_, way) in ways.items():
        first, second = (taken / options.images for taken in way.seconds)
        counts = work[way_name]
        rate = counts["flops"] / (first + second)
        gpu = f"   peak {memory[way_name]:.1f} GiB" if device.type == "cuda" else ""
        print(
            f"{way_name:10} pass 1 {first:7.3f} s   pass 2 {second:7.3f} s an image   "
            f"{counts['tokens']:6.0f} tokens {counts['flops'] / 1e12:7.3f} TFLOP an image   "
            f"{counts['tokens'] / (first + second):7.0f} tokens/s {rate / peak:4.0%} of the peak{gpu}"
        )
    same = {
        "selections": mine.chosen == loop.chosen == batched.chosen,
        "captions": sorted(mine.captions) == sorted(loop.captions),  # ours come longest prompt first
    }
    print(", ".join(f"{what} {'identical' if equal else 'DIFFER'}" for what, equal in same.items()))
    for other_name, other in (("hf_loop", loop), ("hf_batched", batched)):
        print(f"RATIO pass1_vs_{other_name} {other.seconds[0] / mine.seconds[0]:.2f}")
    for other_name, other in (("hf_loop", loop), ("hf_batched", batched)):
        print(f"RATIO two_pass_vs_{other_name} {sum(other.seconds) / sum(mine.seconds):.2f}")
    if not half and not all(same.values()):
        raise SystemExit("selections or captions differ from transformers'")


if __name__ == "__main__":
    main()
