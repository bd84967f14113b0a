"""What packing saves in training: the same mixed examples, forward and backward, run in four ways.

    packed    laid end to end without padding (model.batching: packed)
    groups    groups of like length, padded to at most 15 % (model.batching: groups)
    padded    padded to the longest of the batch (model.batching: padded)
    lavis     the same as LAVIS trains: padded to the longest, logits of every position, not of targets only

Examples are as long as the paper's: captioning with a context of 500 to 600 words (about 700 tokens), yes/no
questions on one sentence (about 60), entity lists from such a context, mixed 1 : 2 : 0.3 in every batch.
Weights and texts are random.
The ways take turns on each batch. The first round is not counted, and of the others the fastest is, because
what else runs on a machine only slows it. Run it with the environment's Python:
python projects/benchmarks/train_step.py
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable
from typing import Any

import torch
from _options import read_options  # the file beside this one
from torch.nn import functional as F

from ealign_plugin.cli.third_party import silence_third_party_warnings

silence_third_party_warnings()
from ealign_plugin.models import InstructBlip  # noqa: E402  it imports LAVIS
from ealign_plugin.models.batching import Tokens, pad  # noqa: E402
from ealign_plugin.models.forwards import embed_rows, forward_groups
from ealign_plugin.models.image_tokens import image_tokens_of
from ealign_plugin.models.meta import give_memory, shapes_only
from ealign_plugin.models.section import CONFIGS

MIX = {"caption": 1.0, "sentence": 2.0, "entity": 0.3}
WORDS = {  # fewest and most of instruction and target; the micro tokenizer makes 1.6 tokens of one
    "caption": ((410, 490), (12, 28)),
    "sentence": ((25, 55), (1, 1)),
    "entity": ((410, 490), (4, 14)),
}
QUESTIONS = {"caption": "Write the caption.", "sentence": "Is this on the photo?", "entity": "Who is it?"}
LLAMA = {"model_type": "llama", "max_position_embeddings": 2048}
SHAPES: dict[str, dict[str, Any]] = {
    "small": {  # 27 million parameters in the language model
        "vision_config": {
            **{"image_size": 64, "patch_size": 16, "hidden_size": 128, "intermediate_size": 512},
            **{"num_hidden_layers": 2, "num_attention_heads": 4},
        },
        "qformer_config": {
            **{"vocab_size": 1920, "hidden_size": 128, "encoder_hidden_size": 128, "intermediate_size": 512},
            **{"num_hidden_layers": 2, "num_attention_heads": 4, "cross_attention_frequency": 1},
        },
        "text_config": {
            **{**LLAMA, "vocab_size": 16000, "hidden_size": 384, "intermediate_size": 1024},
            **{"num_hidden_layers": 8, "num_attention_heads": 6},
        },
    },
    "tiny": {
        "vision_config": {
            **{"image_size": 32, "patch_size": 16, "hidden_size": 32, "intermediate_size": 64},
            **{"num_hidden_layers": 1, "num_attention_heads": 2},
        },
        "qformer_config": {
            **{"vocab_size": 1920, "hidden_size": 32, "encoder_hidden_size": 32, "intermediate_size": 64},
            **{"num_hidden_layers": 1, "num_attention_heads": 2, "cross_attention_frequency": 1},
        },
        "text_config": {
            **{**LLAMA, "vocab_size": 2000, "hidden_size": 32, "intermediate_size": 64},
            **{"num_hidden_layers": 2, "num_attention_heads": 2},
        },
    },
    "7b": {  # EVA ViT-g, BERT-base, Vicuna-7B: transformers' defaults but for the last
        "vision_config": {},
        "qformer_config": {},
        "text_config": {
            **{**LLAMA, "vocab_size": 32001, "hidden_size": 4096, "intermediate_size": 11008},
            **{"num_hidden_layers": 32, "num_attention_heads": 32},
        },
    },
}


def build(shape: str, device: torch.device) -> InstructBlip:
    """Random weights: all trained in float32, or bf16 with the connector trained (7b)."""
    large = shape == "7b"
    options: dict[str, Any] = {"batching": "packed", "max_txt_len": 1024, "max_output_txt_len": 256}
    if large:
        options |= {"dtype": "bf16", "vision_dtype": "bf16", "gradient_checkpointing": True}
    with shapes_only():
        model = InstructBlip(
            config={**SHAPES[shape], "num_query_tokens": 32},
            tokenizer=CONFIGS / "tokenizers" / "micro" / "tokenizer.json",
            **options,
        )
    give_memory(model)
    model.to(device)
    for name, parameter in model.named_parameters():
        parameter.data.normal_(std=0.02) if parameter.ndim > 1 else parameter.data.fill_("bias" not in name)
        parameter.requires_grad = not large or not name.startswith(("vision_model", "language_model"))
    return model.train()


def example(task: str, draw: random.Random, words: list[str]) -> dict[str, str]:
    instruction, target = (" ".join(draw.choices(words, k=draw.randint(*bounds))) for bounds in WORDS[task])
    return {
        "task": task,
        "instruction": f"{instruction} {QUESTIONS[task]}",
        "target": target,
        "question": QUESTIONS[task],
    }


def tasks_of(size: int) -> list[str]:
    """A batch's tasks in the proportions of `MIX`; captioning takes what rounding leaves."""
    sentence, entity = (round(size * MIX[task] / sum(MIX.values())) for task in ("sentence", "entity"))
    return ["caption"] * (size - sentence - entity) + ["sentence"] * sentence + ["entity"] * entity


def batches(model: InstructBlip, number: int, size: int, device: torch.device) -> list[dict[str, Any]]:
    """Mixed batches of the same photos and texts in every run; two examples show a photo."""
    draw = random.Random(0)
    words = [word.strip("Ġ▁") for word in model.tokenizer.get_vocab()]
    words = sorted(word for word in words if word.isalpha() and word.islower() and len(word) > 2)
    pixels = model.config.vision_config.image_size
    made = []
    for _ in range(number):
        rows = [example(task, draw, words) for task in tasks_of(size)]
        noise = torch.Generator().manual_seed(0)
        made.append(
            {
                **{name: [row[name] for row in rows] for name in rows[0]},
                "key": [f"photo{index // 2}" for index in range(size)],
                "image": torch.randn(size, 3, pixels, pixels, generator=noise).to(device),
            }
        )
    return made


def rows_of(model: InstructBlip, samples: dict[str, Any]) -> list[Tokens]:
    prompts, targets = model.prompts(samples["instruction"]), model.targets(samples["target"])
    return [Tokens(prompt, target) for prompt, target in zip(prompts, targets, strict=True)]


def ours(batching: str) -> Callable[[InstructBlip, dict[str, Any]], torch.Tensor]:
    def loss(model: InstructBlip, samples: dict[str, Any]) -> torch.Tensor:
        model.batching = batching
        return model(samples)["loss"]

    return loss


def lavis(model: InstructBlip, samples: dict[str, Any]) -> torch.Tensor:
    """As lavis.models.blip2_models.blip2_vicuna_instruct.forward; images are encoded once, as ours."""
    images = image_tokens_of(model, samples)
    batch = pad(rows_of(model, samples), model.tokenizer.pad_token_id, images.device)
    embeds, mask = embed_rows(model, images, batch.ids, batch.mask)
    labels = torch.cat([batch.labels.new_full(images.shape[:2], -100), batch.labels], dim=1)
    logits = model.language_model(inputs_embeds=embeds, attention_mask=mask, use_cache=False).logits
    return F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten(), ignore_index=-100)


WAYS = {"packed": ours("packed"), "groups": ours("groups"), "padded": ours("padded"), "lavis": lavis}


def widths(model: InstructBlip, samples: dict[str, Any], way: str) -> tuple[int, int]:
    """Tokens of a batch that mean something, and those that are computed."""
    image = model.config.num_query_tokens
    rows = rows_of(model, samples)
    lengths = [image + len(row) for row in rows]
    if way == "packed":
        return sum(lengths), sum(lengths)
    model.batching = "groups" if way == "groups" else "padded"
    groups = forward_groups(model, rows, image, None)
    return sum(lengths), sum(max(lengths[i] for i in group) * len(group) for group in groups)


def seconds(model: InstructBlip, samples: dict[str, Any], way: str) -> float:
    """Of forward and backward."""
    cuda = samples["image"].is_cuda
    model.zero_grad(set_to_none=True)
    if cuda:
        torch.cuda.synchronize()
    start = time.perf_counter()
    WAYS[way](model, samples).backward()
    if cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--shape", default="small", choices=SHAPES, help="7b: in bf16, wants a large GPU")
    parser.add_argument("--batches", type=int, default=1, help="different batches")
    parser.add_argument("--batch", type=int, default=10, help="examples in a batch")
    parser.add_argument("--rounds", type=int, default=2, help="times that each way runs a batch")
    options = read_options(parser, shape="tiny", batch=5, rounds=1)

    device = torch.device(options.device)
    torch.manual_seed(0)
    model = build(options.shape, device)
    data = batches(model, options.batches, options.batch, device)
    count = sum(parameter.numel() for parameter in model.language_model.parameters()) / 1e6
    name = (
        torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    )
    print(
        f"{device.type} ({name}), language model of {count:.0f} million parameters, torch {torch.__version__}"
    )

    taken: dict[str, list[list[float]]] = {way: [[] for _ in data] for way in WAYS}
    memory = dict.fromkeys(WAYS, 0.0)
    for turn in range(options.rounds + 1):
        for number, samples in enumerate(data):
            for way in WAYS:
                if device.type == "cuda":
                    torch.cuda.reset_peak_memory_stats()
                elapsed = seconds(model, samples, way)
                if device.type == "cuda":
                    memory[way] = max(memory[way], torch.cuda.max_memory_allocated() / 2**30)
                if turn:
                    taken[way][number].append(elapsed)
    rates = {}
    for way, batches_taken in taken.items():
        total = sum(map(min, batches_taken))
        real, computed = map(sum, zip(*(widths(model, samples, way) for samples in data), strict=True))
        rates[way] = options.batch * options.batches / total
        peak = f"   peak {memory[way]:5.1f} GiB" if device.type == "cuda" else ""
        print(
            f"{way:8} {rates[way]:8.2f} examples/s {real / total:9.0f} tokens/s   "
            f"padding {1 - real / computed:4.0%}{peak}"
        )
    print(f"RATIO packed_vs_groups {rates['packed'] / rates['groups']:.2f}")
    print(f"RATIO packed_vs_lavis {rates['packed'] / rates['lavis']:.2f}")
    print(f"RATIO packed_vs_padded {rates['packed'] / rates['padded']:.2f}")


if __name__ == "__main__":
    main()
