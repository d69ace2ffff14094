"""Tiny random models of the retrieval classes of transformers and colpali-engine, with those libraries' own processors."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from typing import Any, NamedTuple

import numpy as np
import torch
import transformers
from PIL import Image

from tests.encoders.tiny import ID, SIZES, qwen_images, siglip_images, spread, tiny, tokenizer

DIM = 8
VOCABULARY = 128  # processors add tokens of their own
MARKS = ["<|im_start|>", "<|im_end|>", "<|endoftext|>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>"]
TRANSFORMERS = ["colpali", "colqwen2", "colmodernvbert"]
ENGINE = ["colpali", "colqwen2", "colidefics3"]


class Pages(NamedTuple):
    model: Any
    processor: Any


def pages(count: int) -> list[Image.Image]:
    """Images of one size, so that all take as many tokens."""
    rng = np.random.default_rng(1)
    return [Image.fromarray(rng.integers(0, 255, (56, 56, 3), dtype=np.uint8)) for _ in range(count)]


def of_transformers(family: str) -> Pages:
    return _made(f"_transformers_{family}")


def of_colpali_engine(family: str) -> Pages:
    return _made(f"_engine_{family}")


def _made(name: str) -> Pages:
    torch.manual_seed(0)
    made = globals()[name]()
    spread(made.model)
    return made._replace(model=made.model.eval())


def engine(name: str) -> Any:
    """A module of colpali-engine, which must be installed.

    Its packages import all models, of which some need torchvision; where that is missing they are passed over.
    """
    if importlib.util.find_spec("torchvision") is None:
        for package in ("colpali_engine", "colpali_engine.models"):
            spec = importlib.util.find_spec(package)
            assert spec is not None
            sys.modules.setdefault(package, importlib.util.module_from_spec(spec))  # as it is before its code has run
    return importlib.import_module(f"colpali_engine.models.{name}")


def _tokenizer(side: str = "right") -> Any:
    made = tokenizer(side=side, begin=False, marks=True)
    made.add_tokens(MARKS, special_tokens=True)
    return made


def _text_sizes() -> dict[str, Any]:
    return {**SIZES, "vocab_size": VOCABULARY, "max_position_embeddings": 256}


def _siglip_sizes() -> dict[str, Any]:
    return {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 28,
        "patch_size": 14,
    }


def _idefics_images() -> Any:
    from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

    return Idefics3ImageProcessorPil(size={"longest_edge": 28}, max_image_size={"longest_edge": 28})


def _qwen2_vl() -> Any:
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
    vision = {"depth": 2, "embed_dim": 16, "hidden_size": 16, "num_heads": 2, "mlp_ratio": 2}
    return transformers.Qwen2VLConfig(
        text_config={**_text_sizes(), "num_key_value_heads": 1, "rope_parameters": rope},
        vision_config=vision,
        image_token_id=ID["<|image_pad|>"],
        video_token_id=ID["<|video_pad|>"],
        vision_start_token_id=ID["<|vision_start|>"],
        vision_end_token_id=ID["<|vision_end|>"],
    )


def _transformers_colpali() -> Pages:
    made = tiny("paligemma")
    config = transformers.ColPaliConfig(vlm_config=made.backbone.config, embedding_dim=DIM)
    processor = transformers.ColPaliProcessor(made.processor.image_processor, made.processor.tokenizer)
    return Pages(transformers.ColPaliForRetrieval(config), processor)


def _transformers_colqwen2() -> Pages:
    config = transformers.ColQwen2Config(vlm_config=_qwen2_vl(), embedding_dim=DIM)
    processor = transformers.ColQwen2Processor(qwen_images(), _tokenizer("left"))
    return Pages(transformers.ColQwen2ForRetrieval(config), processor)


def _transformers_colmodernvbert() -> Pages:
    text = {**_text_sizes(), "model_type": "modernbert", "cls_token_id": ID["<s>"], "sep_token_id": ID["</s>"]}
    vision = {**_siglip_sizes(), "model_type": "siglip_vision_model"}
    vlm = transformers.ModernVBertConfig(
        text_config=text, vision_config=vision, image_token_id=ID["<image>"], pixel_shuffle_factor=1
    )
    config = transformers.ColModernVBertConfig(vlm_config=vlm, embedding_dim=DIM)
    processor = transformers.ColModernVBertProcessor(_idefics_images(), _tokenizer(), image_seq_len=4)
    return Pages(transformers.ColModernVBertForRetrieval(config), processor)


def _engine_colpali() -> Pages:
    library = engine("paligemma.colpali")
    made = tiny("paligemma")
    return Pages(library.ColPali(made.backbone.config), library.ColPaliProcessor(siglip_images(), made.processor.tokenizer))


def _engine_colqwen2() -> Pages:
    library = engine("qwen2.colqwen2")
    videos = transformers.Qwen2VLVideoProcessor()
    return Pages(library.ColQwen2(_qwen2_vl()), library.ColQwen2Processor(qwen_images(), _tokenizer(), videos))


def _engine_colidefics3() -> Pages:
    library = engine("idefics3.colidefics3")
    config = transformers.Idefics3Config(
        text_config={**_text_sizes(), "model_type": "llama", "num_key_value_heads": 1},
        vision_config=_siglip_sizes(),
        image_token_id=ID["<image>"],
        scale_factor=1,
    )
    return Pages(library.ColIdefics3(config), library.ColIdefics3Processor(_idefics_images(), _tokenizer(), image_seq_len=4))
