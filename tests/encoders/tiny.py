"""Tiny random models of each family, with tokenizers and processors of their own: nothing is fetched."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
import transformers
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers.processing_utils import ProcessorMixin

VISION_MARKS = ["<|vision_start|>", "<|vision_end|>"]
SPECIAL = ["<pad>", "<unk>", "<s>", "</s>", "<image>", "<|image|>", "<|image_pad|>", "<|video_pad|>", "<|python_tag|>"]
SPECIAL += VISION_MARKS
WORDS = SPECIAL + [f"w{number}" for number in range(53)]
ID = {word: number for number, word in enumerate(WORDS)}
TEXTS = ["w1 w2 w3", "w4", "w5 w6 w7 w8 w9 w10 w11", "", "w12 w13"]
SIZES = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": len(WORDS)}
SIZES |= {"bos_token_id": ID["<s>"], "eos_token_id": ID["</s>"], "pad_token_id": ID["<pad>"]}
TEXT_FAMILIES = ["bert", "roberta", "llama", "gpt2"]
IMAGE_FAMILIES = ["qwen2_5_vl", "paligemma", "mllama"]


class Tiny(NamedTuple):
    backbone: Any
    processor: Any


def tokenizer(*, side: str = "right", pad: str | None = "<pad>", begin: bool = True, marks: bool = False, **extra: Any) -> Any:
    known = {word: number for word, number in ID.items() if marks or word not in VISION_MARKS}
    made = Tokenizer(models.WordLevel(known, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if begin:
        made.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", ID["<s>"])])
    named = {"pad_token": pad, "unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    special = [word for word in SPECIAL[4:] if word in known]
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, additional_special_tokens=special, padding_side=side, **named, **extra
    )


class QwenProcessor(transformers.Qwen2_5_VLProcessor):
    """The real one needs torchvision for videos, which no test here has."""

    def __init__(self, image_processor: Any = None, tokenizer: Any = None, chat_template: Any = None) -> None:
        self.image_token, self.image_token_id = "<|image_pad|>", ID["<|image_pad|>"]
        self.video_token, self.video_token_id = "<|video_pad|>", ID["<|video_pad|>"]
        ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)


def tiny(family: str, side: str = "right", seed: int = 0) -> Tiny:
    """A model of a family, all of its weights large enough to matter."""
    torch.manual_seed(seed)
    made = globals()[f"_{family}"](side)
    spread(made.backbone)
    return made._replace(backbone=made.backbone.eval())


def spread(model: Any) -> None:
    """Make random weights large enough to matter."""
    with torch.no_grad():
        for name, values in model.named_parameters():
            if "norm" not in name.lower():
                values.copy_(torch.randn_like(values) * (1.0 if values.ndim == 1 else 0.5))


def images(count: int) -> list[Image.Image]:
    """Of different shapes, so that they take different numbers of tokens where a family allows it."""
    rng = np.random.default_rng(0)
    shapes = [(56, 56), (28, 84), (112, 56), (56, 84)]
    return [
        Image.fromarray(rng.integers(0, 255, (*shapes[number % len(shapes)], 3), dtype=np.uint8)) for number in range(count)
    ]


# Readers of images that need no torchvision. They are imported where they are used: older versions of transformers lack them.


def qwen_images() -> Any:
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    return Qwen2VLImageProcessorPil(size={"shortest_edge": 28 * 28, "longest_edge": 112 * 112})


def siglip_images() -> Any:
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    reader = SiglipImageProcessorPil(size={"height": 28, "width": 28})
    reader.image_seq_length = 4
    return reader


def mllama_images() -> Any:
    from transformers.models.mllama.image_processing_pil_mllama import MllamaImageProcessorPil

    return MllamaImageProcessorPil(size={"height": 28, "width": 28}, max_image_tiles=2)


def _bert(side: str) -> Tiny:
    config = transformers.BertConfig(**SIZES, max_position_embeddings=64)
    return Tiny(transformers.BertModel(config), tokenizer(side=side))


def _roberta(side: str) -> Tiny:
    config = transformers.RobertaConfig(**SIZES, max_position_embeddings=66)
    return Tiny(transformers.RobertaModel(config, add_pooling_layer=False), tokenizer(side=side, model_max_length=64))


def _llama(side: str) -> Tiny:
    config = transformers.LlamaConfig(**SIZES, num_key_value_heads=1, max_position_embeddings=64)
    return Tiny(transformers.LlamaForCausalLM(config), tokenizer(side=side))


def _gpt2(side: str) -> Tiny:
    config = transformers.GPT2Config(
        vocab_size=len(WORDS), n_positions=64, n_embd=16, n_layer=2, n_head=2, bos_token_id=2, eos_token_id=3
    )
    return Tiny(transformers.GPT2Model(config), tokenizer(side=side, pad=None, begin=False))


def _qwen2_5_vl(side: str) -> Tiny:
    vision = {"depth": 2, "hidden_size": 16, "intermediate_size": 24, "num_heads": 2, "out_hidden_size": 16}
    vision |= {"fullatt_block_indexes": [1], "window_size": 56}
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
    config = transformers.Qwen2_5_VLConfig(
        text_config={**SIZES, "num_key_value_heads": 1, "max_position_embeddings": 256, "rope_parameters": rope},
        vision_config=vision,
        image_token_id=ID["<|image_pad|>"],
        video_token_id=ID["<|video_pad|>"],
        vision_start_token_id=ID["<|vision_start|>"],
        vision_end_token_id=ID["<|vision_end|>"],
    )
    model = transformers.Qwen2_5_VLForConditionalGeneration(config)
    return Tiny(model, QwenProcessor(qwen_images(), tokenizer(side=side, begin=False, marks=True)))


def _paligemma(side: str) -> Tiny:
    vision = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision |= {"image_size": 28, "patch_size": 14, "projection_dim": 16, "model_type": "siglip_vision_model"}
    config = transformers.PaliGemmaConfig(
        text_config={**SIZES, "model_type": "gemma", "num_key_value_heads": 1, "head_dim": 8, "max_position_embeddings": 128},
        vision_config=vision,
        image_token_id=ID["<image>"],
        projection_dim=16,
        hidden_size=16,
    )
    model = transformers.PaliGemmaForConditionalGeneration(config)
    return Tiny(model, transformers.PaliGemmaProcessor(siglip_images(), tokenizer(side=side, begin=False)))


def _mllama(side: str) -> Tiny:
    vision = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_global_layers": 1}
    vision |= {"attention_heads": 2, "image_size": 28, "patch_size": 14, "max_num_tiles": 2, "vision_output_dim": 32}
    vision |= {"intermediate_layers_indices": [0], "supported_aspect_ratios": [[1, 1], [1, 2], [2, 1]]}
    config = transformers.MllamaConfig(
        text_config={
            **SIZES,
            "num_key_value_heads": 1,
            "num_hidden_layers": 3,
            "cross_attention_layers": [1],
            "max_position_embeddings": 128,
        },
        vision_config=vision,
        image_token_index=ID["<|image|>"],
    )
    model = transformers.MllamaForConditionalGeneration(config)
    return Tiny(model, transformers.MllamaProcessor(mllama_images(), tokenizer(side=side)))
