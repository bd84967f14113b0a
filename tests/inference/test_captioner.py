"""`ealign_plugin.NewsCaptioner`: what a run left on disk captions photos in another project."""

import io
import random
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import spacy
import torch
from lavis.common.registry import registry
from omegaconf import OmegaConf
from PIL import Image

import ealign_plugin
from ealign_plugin.entities import NamedEntityRecognizer
from ealign_plugin.errors import UserError
from ealign_plugin.host.config import load_config
from ealign_plugin.inference.evaluator import Evaluator
from ealign_plugin.inference.inputs import read_photo
from ealign_plugin.inference.options import EvaluationOptions
from ealign_plugin.inference.results import Caption
from ealign_plugin.inference.run_settings import exported_files
from ealign_plugin.models import InstructBlip
from ealign_plugin.models.weights.export import export
from ealign_plugin.news import NewsSample, Sentence
from ealign_plugin.registered.task import NewsCaptioning
from ealign_plugin.training.checkpoints.store import CheckpointStore
from tests.inference.test_evaluator import Split

RUN = """
model:
  arch: ealign_instructblip
  model_type: micro
  num_query_tokens: 4
  max_txt_len: 96
  vision_config: {hidden_size: 32, intermediate_size: 64, num_hidden_layers: 1}
  qformer_config: {hidden_size: 32, encoder_hidden_size: 32, intermediate_size: 64, num_hidden_layers: 1}
  text_config: {hidden_size: 32, intermediate_size: 64, num_hidden_layers: 2}
datasets:
  ealign_micronews:
    templates: {caption: "Write a caption. {context}"}
    vis_processor:
      eval: {name: ealign_image, image_size: 64, mean: [0.1, 0.2, 0.3]}
run:
  task: ealign_news_captioning
  runner: ealign_runner
  max_iters: 1
  iters_per_inner_epoch: 1
  batch_size_train: 4
  batch_size_eval: 4
  init_lr: 1.0e-3
  contexts: [oracle, head, refined]
  context_words: 30
  max_len: 8
  num_beams: 2
"""

ARTICLES = [
    "Ana Ruiz spoke in Oslo. It rained all day.\n\nThe mayor left early. Nobody knew why.",
    "The match ended. Leo Brandt scored twice in Turin. He was\ntired.\n\n\nThe crowd sang.",
    "",
    "One sentence only.",
]


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As lavis.train leaves one: the resolved config and the best weights, here random ones."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "user.yaml").write_text(RUN)
    cfg = load_config(folder / "user.yaml")
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(cfg.config, resolve=True))
    torch.manual_seed(3)
    model = InstructBlip.from_config(cfg.model_cfg)
    save(folder, model, iters=400)
    return folder


def save(run: Path, model: InstructBlip, iters: int, metric: float = 0.5) -> None:
    """A checkpoint of the run, beside those that it has."""
    store = CheckpointStore(run / "checkpoints", keep_last=9)
    optimizer = torch.optim.SGD(model.parameters())
    store.save(model, optimizer, iters=iters, metric=metric, values={}, per_rank={}, manifest={})


@pytest.fixture(scope="module")
def ner() -> NamedEntityRecognizer:
    """Sentences end at full stops; made at once, where a trained pipeline takes a second."""
    nlp = spacy.blank("en")
    nlp.add_pipe("sentencizer")
    return NamedEntityRecognizer(nlp, "blank", "0")


@pytest.fixture(scope="module")
def captioner(run_folder, ner) -> ealign_plugin.NewsCaptioner:
    return ealign_plugin.NewsCaptioner.from_checkpoint(run_folder, device="cpu", ner=ner, threshold=None)


@pytest.fixture(scope="module")
def photos() -> list[Image.Image]:
    """Four of plain colour, of different sizes."""
    colours = ("red", "green", "blue", "white")
    return [Image.new("RGB", (80 + 10 * number, 70), colour) for number, colour in enumerate(colours)]


def message_of(call: Any, *args: Any, **options: Any) -> str:
    with pytest.raises(UserError) as error:
        call(*args, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def from_checkpoint(path: Path, ner: NamedEntityRecognizer, **options: Any) -> ealign_plugin.NewsCaptioner:
    return ealign_plugin.NewsCaptioner.from_checkpoint(path, device="cpu", ner=ner, **options)


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


# One photo


def test_a_caption_comes_with_what_both_passes_found(captioner, photos):
    result = captioner(photos[0], ARTICLES[0], context="supplemented")
    assert isinstance(result, Caption) and str(result) == result.caption != ""
    assert [(s.text, s.paragraph) for s in result.sentences] == [
        ("Ana Ruiz spoke in Oslo.", 0),
        ("It rained all day.", 0),
        ("The mayor left early.", 1),
        ("Nobody knew why.", 1),
    ]
    assert all(0 < sentence.score < 1 for sentence in result.sentences)
    assert result.selected == result.sentences  # threshold=None
    assert result.context.startswith("Ana Ruiz spoke in Oslo. It rained all day. The mayor")
    assert result.error == ""


def test_the_scores_are_the_models_own(captioner, photos):
    result = captioner(photos[1], ARTICLES[1])
    model, wording = captioner.model, captioner.wording
    answers = [wording.templates.yes, wording.templates.no]
    features = model.encode_images(captioner.image_processor(photos[1])[None])
    for sentence in result.sentences:
        prompt, question = wording.sentence(sentence.text)
        log = model.score(features, prompt, [""], answers, question=question)
        assert sentence.score == pytest.approx(log.softmax(-1)[0, 0].item(), abs=1e-5)


def test_pass_1_runs_only_where_it_is_needed(captioner, photos, monkeypatch):
    monkeypatch.setattr(captioner.model, "score", None)  # whoever calls it fails
    result = captioner(photos[0], ARTICLES[0], context="head")
    assert result.caption and result.sentences == () and result.context.endswith("Nobody knew why.")
    monkeypatch.undo()
    scored = captioner(photos[0], ARTICLES[0], context="head", scores=True)
    assert len(scored.sentences) == 4 and (scored.caption, scored.context) == (result.caption, result.context)


def test_an_article_is_text_or_paragraphs_or_a_sample(captioner, photos):
    paragraphs = ["Ana Ruiz spoke in Oslo. It rained all day.", "The mayor left early. Nobody knew why."]
    sample = NewsSample(key="a", split="test", caption="", paragraphs=tuple(paragraphs))
    results = [captioner(photos[0], article) for article in (ARTICLES[0], paragraphs, sample)]
    assert results[0] == results[1] == results[2]


def test_a_sample_that_has_sentences_keeps_them(captioner, photos):
    sentence = Sentence("Ana spoke", 0, 0)
    sample = NewsSample(
        key="a", split="test", caption="", paragraphs=("Ana spoke in Oslo.",), sentences=(sentence,)
    )
    assert [s.text for s in captioner(photos[0], sample).sentences] == ["Ana spoke"]


def test_headline_and_place_are_read_around_the_image(captioner, photos):
    result = captioner(
        photos[0], ARTICLES[0], context="around_image", headline="Rain in Oslo", image_position=1
    )
    assert result.context.startswith("Rain in Oslo Ana Ruiz spoke")
    message = message_of(captioner, photos[0], ARTICLES[0], image_position=3)
    assert "image_position 3 found, the article has 2 paragraphs" in message


def test_a_photo_is_a_picture_or_a_path_or_bytes(captioner, photos, tmp_path):
    photos[0].save(tmp_path / "a.png")
    given = [photos[0], tmp_path / "a.png", str(tmp_path / "a.png"), png(photos[0])]
    results = [captioner(image, ARTICLES[0]) for image in given]
    assert all(result == results[0] for result in results)


def test_a_picture_is_read_like_its_file(photos):
    """Turned by EXIF, and transparent."""
    turned, glass = io.BytesIO(), Image.new("RGBA", (70, 70), (255, 0, 0, 40))
    exif = Image.Exif()
    exif[0x0112] = 6
    halves = photos[0].copy()
    halves.paste("black", (0, 0, 40, 70))
    halves.save(turned, "PNG", exif=exif)

    def picture_of(photo):
        return list(read_photo(photo, "a").getdata())

    for content in (turned.getvalue(), png(glass)):
        picture = Image.open(io.BytesIO(content))
        assert picture_of(picture) == picture_of(content)
    assert picture_of(turned.getvalue()) != picture_of(halves)


def test_a_picture_of_too_many_pixels_is_refused(captioner, photos, monkeypatch):
    monkeypatch.setattr("ealign_plugin.images.MAX_PIXELS", 80 * 70 - 1)
    for image in (photos[0], png(photos[0])):
        message = message_of(captioner, image, ARTICLES[0])
        assert message.startswith("image: the picture has 80×70 pixels, at most 5,599")


def test_a_picture_that_breaks_off_while_it_is_decoded(captioner, photos, monkeypatch):
    monkeypatch.setattr("PIL.ImageFile.LOAD_TRUNCATED_IMAGES", True)  # as LAVIS does
    noise = Image.frombytes("RGB", (64, 64), random.Random(0).randbytes(64 * 64 * 3))
    lazy = Image.open(io.BytesIO(png(noise)[:200]))
    assert "image: the picture cannot be read" in message_of(captioner, lazy, ARTICLES[0])


# Many photos


@pytest.mark.parametrize("batch_size", [2, 3, 8])
def test_a_stream_gives_what_single_calls_give(captioner, photos, batch_size):
    pairs = [(photos[i % 4], ARTICLES[j]) for i, j in enumerate([0, 0, 1, 2, 3, 1])]
    together = list(captioner.stream(iter(pairs), batch_size=batch_size))
    assert len(together) == len(pairs)
    for result, (photo, article) in zip(together, pairs, strict=True):
        alone = captioner(photo, article)
        assert (result.caption, result.context, result.entities, result.hallucinated_names) == (
            (alone.caption, alone.context, alone.entities, alone.hallucinated_names)
        )
        assert [s.text for s in result.sentences] == [s.text for s in alone.sentences]
        for one, other in zip(result.sentences, alone.sentences, strict=True):
            assert one.score == pytest.approx(other.score, abs=1e-5) and one.selected == other.selected


def test_a_stream_reads_a_batch_at_a_time(captioner, photos):
    read = []

    def pairs():
        for number in range(7):
            read.append(number)
            yield photos[0], ARTICLES[0]

    results = captioner.stream(pairs(), batch_size=3)
    assert read == []
    next(results)
    assert read == [0, 1, 2]
    assert len(list(results)) == 6


def test_photos_of_a_batch_are_encoded_together_and_articles_read_once(captioner, photos, monkeypatch):
    sizes: list[int] = []
    texts: list[str] = []
    encode, pipe = captioner.model.encode_images, captioner.ner.nlp.pipe

    def counted(stream: Any, **options: Any) -> Any:
        stream = list(stream)
        texts.extend(stream)
        return pipe(stream, **options)

    monkeypatch.setattr(
        captioner.model, "encode_images", lambda images: sizes.append(len(images)) or encode(images)
    )
    monkeypatch.setattr(captioner.ner.nlp, "pipe", counted)
    article = ARTICLES[1] + " They sang again."  # which no other test has read
    list(captioner.stream([(photos[0], article)] * 5, batch_size=2))
    assert sizes == [2, 2, 1]
    assert texts.count("The crowd sang. They sang again.") == 1


def test_a_bad_pair_is_named_or_keeps_its_place(captioner, photos, tmp_path):
    (tmp_path / "cut.png").write_bytes(png(photos[0])[:60])
    bad = {
        "image": (b"no picture", ARTICLES[0]),
        "cut.png": (tmp_path / "cut.png", ARTICLES[0]),
        "none.jpg": (tmp_path / "none.jpg", ARTICLES[0]),
        "found int": (7, ARTICLES[0]),
        "found NoneType": (photos[0], None),
        "paragraph 1 is no text, found int": (photos[0], ["A.", 5]),
        "found bytes": (photos[0], b"An article."),
        "no Unicode text": (photos[0], "Ana \ud800 spoke."),
        "(image, article)": photos[0],
    }
    good = (photos[0], ARTICLES[0])
    for words, pair in bad.items():
        message = message_of(list, captioner.stream([good, pair]))
        assert message.startswith("pair 1") and words in message
    pairs = [pair for one in bad.values() for pair in (one, good)]
    results = list(captioner.stream(pairs, batch_size=4, on_error="skip"))
    assert [result.error == "" for result in results] == [False, True] * len(bad)
    assert all(bool(result.caption) != bool(result.error) for result in results)
    alone = captioner(*good)
    assert {result.caption for result in results[1::2]} == {alone.caption}
    for words, result in zip(bad, results[::2], strict=True):
        assert words in result.error


def test_a_stream_of_bad_pairs_only(captioner):
    results = list(captioner.stream([(b"", "A."), (b"", "B.")], on_error="skip"))
    assert ["pair 0" in results[0].error, "pair 1" in results[1].error] == [True, True]
    assert list(captioner.stream([])) == []


def test_wrong_arguments_are_told_before_the_first_pair(captioner, photos):
    assert "batch_size 0" in message_of(captioner.stream, [], batch_size=0)
    assert "on_error 'ignore'" in message_of(captioner.stream, [], on_error="ignore")
    assert "'refind' is unknown" in message_of(captioner.stream, [], "refind")
    assert "'refind' is unknown" in message_of(captioner, photos[0], "A.", context="refind")
    assert "reads the reference caption" in message_of(captioner, photos[0], "A.", context="oracle")


# Articles of all kinds


def test_an_empty_article_is_captioned_without_context(captioner, photos):
    for article in ("", " \n\n ", []):
        result = captioner(photos[0], article)
        assert result.caption and (result.sentences, result.context, result.entities) == ((), "", ())


def test_an_article_of_one_sentence(captioner, photos):
    result = captioner(photos[0], "Ana Ruiz spoke in Oslo.")
    assert [s.text for s in result.selected] == ["Ana Ruiz spoke in Oslo."]
    assert result.context == "Ana Ruiz spoke in Oslo."


@pytest.mark.parametrize("article", ["no full stop " * 400, "word" * 3000], ids=["a line", "a word"])
def test_a_sentence_longer_than_the_model_reads(captioner, photos, article):
    for context in ("refined", "full", "head"):
        assert captioner(photos[0], article, context=context).caption


def test_three_thousand_sentences(captioner, photos):
    article = "\n\n".join(f"Speaker {n} came to Oslo. It was day {n} of the talks." for n in range(1500))
    start = time.perf_counter()
    result = captioner(photos[0], article)
    assert len(result.sentences) == 3000
    assert len(result.context.split()) <= 30
    assert time.perf_counter() - start < 10


def test_a_paragraph_longer_than_spacy_reads_is_an_error(captioner, photos, monkeypatch):
    monkeypatch.setattr(captioner.ner.nlp, "max_length", 20)
    message = message_of(captioner, photos[0], "Short.\n\n" + "x" * 21)
    assert "paragraph 1 has 21 characters, at most 20" in message


# A run's files


def test_templates_processor_options_and_context_are_the_runs(captioner, run_folder, ner):
    assert captioner.wording.templates.caption == "Write a caption. {context}"
    assert captioner.image_processor.mean == [0.1, 0.2, 0.3]
    assert captioner.image_processor.decode_size == 128  # of the data set's default YAML
    assert (captioner.options.context_words, captioner.options.max_len) == (30, 8)
    assert captioner.options.min_len == 1  # of the task
    assert captioner.context == "refined"
    assert captioner.options.threshold is None and captioner.options.num_beams == 2
    assert not captioner.model.training


@pytest.mark.parametrize(
    "place",
    [
        *("checkpoints", "checkpoints/best", "checkpoints/last", "checkpoints/iter_000400"),
        "checkpoints/best/weights.safetensors",
    ],
)
def test_any_place_in_the_run_names_its_weights(captioner, run_folder, photos, ner, place):
    again = from_checkpoint(run_folder / place, ner, threshold=None)
    assert again(photos[2], ARTICLES[1]) == captioner(photos[2], ARTICLES[1])


def test_of_a_run_the_best_weights_are_taken(captioner, run_folder, tmp_path, photos, ner):
    run = shutil.copytree(run_folder, tmp_path / "run", symlinks=True)
    model = from_checkpoint(run, ner).model
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= -1.5
    save(run, model, iters=800, metric=0.4)
    expected = captioner(photos[2], ARTICLES[1])
    assert from_checkpoint(run, ner, threshold=None)(photos[2], ARTICLES[1]) == expected
    last = from_checkpoint(run / "checkpoints" / "last", ner, threshold=None)
    assert last(photos[2], ARTICLES[1]) != expected
    save(run, model, iters=1200, metric=0.6)
    assert from_checkpoint(run, ner, threshold=None)(photos[2], ARTICLES[1]) != expected


def test_damaged_weights_are_refused_and_in_a_run_passed_over(captioner, run_folder, tmp_path, photos, ner):
    run = shutil.copytree(run_folder, tmp_path / "run", symlinks=True)
    save(run, captioner.model, iters=800, metric=0.9)
    weights = run / "checkpoints" / "best" / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    message = message_of(from_checkpoint, run / "checkpoints" / "best", ner)
    assert "iter_000800/weights.safetensors: its SHA-256 is not the one in manifest.json" in message
    again = from_checkpoint(run, ner, threshold=None)
    assert again(photos[2], ARTICLES[1]) == captioner(photos[2], ARTICLES[1])
    weights.unlink()
    message = message_of(from_checkpoint, run / "checkpoints" / "iter_000800", ner)
    assert "iter_000800/weights.safetensors: the file is missing; use another checkpoint" in message
    # Whoever captions needs nothing of the optimiser.
    (run / "checkpoints" / "iter_000400" / "optimizer.safetensors").unlink()
    assert from_checkpoint(run, ner).context == "refined"


def test_a_run_without_a_checkpoint_is_refused(run_folder, tmp_path, ner):
    shutil.copy(run_folder / "config.yaml", tmp_path)
    assert "no whole checkpoint in it; give a run's folder" in message_of(from_checkpoint, tmp_path, ner)
    assert "no such file or folder" in message_of(from_checkpoint, tmp_path / "none", ner)


def test_a_bare_checkpoint_needs_a_config(run_folder, tmp_path, ner):
    bare = tmp_path / "bare.safetensors"
    shutil.copy(run_folder / "checkpoints" / "best" / "weights.safetensors", bare)
    assert "name the run's YAML by config=" in message_of(from_checkpoint, bare, ner)
    made = from_checkpoint(bare, ner, config=run_folder / "user.yaml")
    assert made.options.context_words == 30
    shutil.copy(run_folder / "config.yaml", tmp_path)
    assert from_checkpoint(bare, ner).context == "refined"
    bare.write_text("no weights")
    message = message_of(from_checkpoint, bare, ner, config=run_folder / "user.yaml")
    assert "it is no safetensors file" in message


def test_options_replace_the_runs_and_unknown_ones_are_refused(run_folder, ner):
    options = from_checkpoint(run_folder, ner, num_beams=1, context_words=7).options
    assert (options.num_beams, options.context_words, options.max_len) == (1, 7, 8)
    message = message_of(from_checkpoint, run_folder, ner, num_beam=1)
    assert "unknown option 'num_beam'; did you mean 'num_beams'?" in message
    assert "num_beams" in message_of(from_checkpoint, run_folder, ner, num_beams=0)
    message = message_of(ealign_plugin.NewsCaptioner.from_checkpoint, run_folder, device="gpu", ner=ner)
    assert "device: 'gpu' found" in message


def test_data_sets_that_ask_in_other_words_are_refused(run_folder, tmp_path, ner):
    text = RUN.replace("run:\n", "  ealign_news: {templates: {caption: '{context} Now?'}}\nrun:\n")
    (tmp_path / "two.yaml").write_text(text)
    message = message_of(from_checkpoint, run_folder, ner, config=tmp_path / "two.yaml")
    assert "ealign_micronews and ealign_news have unlike templates" in message
    (tmp_path / "two.yaml").write_text(text.replace("{context} Now?", "Write a caption. {context}"))
    assert from_checkpoint(run_folder, ner, config=tmp_path / "two.yaml").options.max_len == 8


def test_a_data_set_without_an_image_processor_is_refused(run_folder, tmp_path, ner):
    text = RUN[: RUN.index("datasets:")] + "datasets: {coco_caption: {}}\n" + RUN[RUN.index("run:") :]
    (tmp_path / "run.yaml").write_text(text)
    message = message_of(from_checkpoint, run_folder, ner, config=tmp_path / "run.yaml")
    assert "datasets.coco_caption.vis_processor.eval: missing" in message


@pytest.mark.parametrize("before", [None, "the host's"])
def test_laviss_registry_is_left_as_it_was(run_folder, ner, before, monkeypatch):
    state = {} if before is None else {"configuration": before}
    monkeypatch.setitem(registry.mapping, "state", state)
    names = {name: dict(values) for name, values in registry.mapping.items()}
    from_checkpoint(run_folder, ner)
    assert registry.mapping == names
    message_of(from_checkpoint, run_folder, ner, config=run_folder / "none.yaml")
    assert registry.mapping == names


def test_a_fresh_process_needs_no_data_and_makes_none(run_folder, run_python, tmp_path):
    """The only test with spaCy's model, that of the run's config."""
    (tmp_path / "cache").mkdir()
    code = f"""
import sys, ealign_plugin
assert "torch" not in sys.modules and "lavis" not in sys.modules
captioner = ealign_plugin.NewsCaptioner.from_checkpoint({str(run_folder)!r}, device="cpu")
assert "lavis" not in sys.modules
from PIL import Image
result = captioner(Image.new("RGB", (80, 70)), "Ana Ruiz met Mr. Brandt in Oslo. It rained.", scores=True)
print(captioner.ner.name, len(result.sentences), bool(result.caption))
try:
    ealign_plugin.NoSuchName
except AttributeError as error:
    print(error)
"""
    done = run_python("-c", code, env={"EALIGN_CACHE": str(tmp_path / "cache")})
    assert done.stdout.splitlines() == [
        "en_core_web_sm 2 True",
        "module 'ealign_plugin' has no attribute 'NoSuchName'",
    ], done.stderr
    assert list((tmp_path / "cache").iterdir()) == []


def test_the_shards_name_the_spacy_model_where_they_are_here(run_folder, tmp_path):
    index = '{"schema": 1, "splits": {}, "ner": {"name": "xx_no_such_model", "version": "1"}}'
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "index.json").write_text(index)
    section = f"ealign_news:\n    build_info: {{images: {{storage: {tmp_path / 'shards'}}}}}"
    (tmp_path / "run.yaml").write_text(RUN.replace("ealign_micronews:", section))
    path = tmp_path / "run.yaml"
    message = message_of(ealign_plugin.NewsCaptioner.from_checkpoint, run_folder, config=path, device="cpu")
    assert "'xx_no_such_model'" in message


# Settings that travel with the weights


@pytest.fixture(scope="module")
def checkpoint(run_folder, tmp_path_factory) -> Path:
    """One checkpoint's folder alone, as a run of today writes it."""
    task = NewsCaptioning.setup_task(load_config(run_folder / "user.yaml"))
    source = run_folder / "checkpoints" / "iter_000400"
    folder = shutil.copytree(source, tmp_path_factory.mktemp("elsewhere") / "iter_000400")
    for name, content in task.checkpoint_files().items():
        (folder / name).write_bytes(content)
    return folder


def test_a_checkpoint_alone_is_enough(captioner, checkpoint, photos, ner):
    alone = from_checkpoint(checkpoint, ner, threshold=None)
    assert (alone.options, alone.wording.templates) == (captioner.options, captioner.wording.templates)
    assert alone.context == "refined" and alone.image_processor.mean == [0.1, 0.2, 0.3]
    for photo, article in zip(photos, ARTICLES, strict=True):
        assert alone(photo, article) == captioner(photo, article)


def test_a_checkpoint_alone_captions_as_the_evaluation_does(checkpoint, photos, ner, tmp_path):
    alone = from_checkpoint(checkpoint, ner, threshold=None)
    samples = [
        NewsSample(key=str(i), split="test", caption="Ana.", paragraphs=(text,))
        for i, text in enumerate(ARTICLES)
    ]
    split = Split(*ner.annotate(samples))
    split.wording, split.ner = alone.wording, {"name": ner.name, "version": ner.version}
    batch = next(iter(split.batches(size=len(samples))))
    batch["image"] = torch.stack([alone.image_processor(photo) for photo in photos])
    evaluator = Evaluator(alone.options, EvaluationOptions(contexts=("head", "refined")), ner)
    evaluator.start(split, tmp_path)
    records = evaluator.evaluate_batch(alone.model, batch)
    for record, photo, sample in zip(records, photos, split.samples, strict=True):
        result = alone(photo, sample)
        assert result.caption == record["captions"]["refined"]["caption"]
        assert result.context == record["captions"]["refined"]["context_text"]
        assert list(result.entities) == record["first"]["entities"]
        assert list(result.hallucinated_names) == record["first"]["invented"]
        assert str(alone(photo, sample, "head")) == record["captions"]["head"]["caption"]


def test_a_checkpoint_alone_captions_in_a_process_without_lavis(captioner, checkpoint, photos, run_python):
    code = f"""
import sys, spacy, ealign_plugin
from PIL import Image
from ealign_plugin.entities import NamedEntityRecognizer
nlp = spacy.blank("en")
nlp.add_pipe("sentencizer")
ner = NamedEntityRecognizer(nlp, "blank", "0")
make = ealign_plugin.NewsCaptioner.from_checkpoint
captioner = make({str(checkpoint)!r}, device="cpu", ner=ner, threshold=None)
print(captioner(Image.new("RGB", (80, 70), "red"), {ARTICLES[0]!r}))
assert "lavis" not in sys.modules
"""
    done = run_python("-c", code)
    assert done.stdout.strip() == str(captioner(photos[0], ARTICLES[0])), done.stderr


def test_a_config_replaces_the_settings_beside_the_weights(checkpoint, run_folder, tmp_path, ner):
    text = RUN.replace("context_words: 30", "context_words: 9")
    (tmp_path / "run.yaml").write_text(text)
    assert from_checkpoint(checkpoint, ner, config=tmp_path / "run.yaml").options.context_words == 9
    assert from_checkpoint(checkpoint, ner).options.context_words == 30


def test_an_exported_folder_is_enough(captioner, checkpoint, run_folder, tmp_path, photos, ner):
    files = exported_files(load_config(run_folder / "user.yaml").config, "user.yaml", None)
    image = captioner.image_processor
    export(captioner.model, tmp_path / "model", mean=image.mean, std=image.std, files=files)
    exported = from_checkpoint(tmp_path / "model", ner, threshold=None)
    for photo, article in zip(photos, ARTICLES, strict=True):
        assert str(exported(photo, article)) == str(captioner(photo, article))
    (tmp_path / "model" / "captioning.json").unlink()
    message = message_of(from_checkpoint, tmp_path / "model", ner)
    assert "an exported folder without captioning.json" in message


# Threads


def test_eight_threads_give_what_single_calls_give(captioner, photos):
    pairs = [(photos[i % 4], ARTICLES[j]) for i, j in enumerate([0, 0, 1, 2, 3, 1, 0, 3] * 3)]
    single = [captioner(*pair) for pair in pairs]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda pair: captioner(*pair), pairs))
        streams = list(pool.map(lambda _: list(captioner.stream(pairs[:4], batch_size=1)), range(8)))
    assert together == single
    assert streams == [single[:4]] * 8
