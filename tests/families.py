"""Tiny vision-language models of twelve families from their configurations, as checkpoint folders, without downloads.

Each has its family's own architecture, image processor, placeholder tokens and manner of chat template; the weights
are fresh. Some processors need torchvision for their videos: these are written without that part, and named as the
hub names them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
from conftest import FORGET, RETAIN
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForImageTextToText,
    CLIPVisionConfig,
    Gemma3Config,
    Gemma3Processor,
    Gemma3TextConfig,
    GemmaConfig,
    Idefics3Config,
    Idefics3Processor,
    InternVLConfig,
    InternVLProcessor,
    InternVLVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaNextConfig,
    LlavaNextProcessor,
    LlavaOnevisionConfig,
    LlavaOnevisionProcessor,
    LlavaProcessor,
    MllamaConfig,
    MllamaProcessor,
    PaliGemmaConfig,
    PaliGemmaProcessor,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLProcessor,
    Qwen2Config,
    Qwen2VLConfig,
    Qwen2VLProcessor,
    Qwen3VLConfig,
    Qwen3VLProcessor,
    SiglipVisionConfig,
    SmolVLMConfig,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import LlavaOnevisionImageProcessorPil
from transformers.models.mllama.image_processing_pil_mllama import MllamaImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

HIDDEN, LAYERS, HEADS = 32, 5, 2
VISION = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
SIDE, PATCH = 28, 14
"""One crop is 28 x 28 pixels, 2 x 2 patches; families that pool or merge patches 2 x 2 take 56 x 56."""
GRID = [[28, 56], [56, 28], [56, 56], [28, 84], [84, 28]]
VOCABULARY = 448


@dataclass(frozen=True)
class Family:
    """How to build one family. `config` takes the tokenizer; `video` names the class of its processor for videos."""

    config: Callable[[Any], Any]
    images: Callable[[], Any]
    processor: type[Any]
    template: str
    eos: str
    bos: str | None = None
    tokens: tuple[str, ...] = ()
    named: dict[str, str] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    video: str = ""


def chat(
    image: str,
    user: str,
    close: str,
    assistant: str,
    end: str,
    *,
    start: str = "",
    lead: str = "",
    tagged: bool = False,
) -> str:
    """A chat template of turns: `lead` parts a given answer, but no prompt for one, from what comes before it.

    With `tagged`, the answer and its `end` are marked as generated.
    """
    parts = (
        "{% for part in message['content'] %}{% if part['type'] == 'image' %}"
        + image
        + "{% else %}{{ part['text'] }}{% endif %}{% endfor %}"
    )
    answer = "{% generation %}" + parts + end + "{% endgeneration %}" if tagged else parts + end
    return (
        start
        + "{% for message in messages %}{% if message['role'] == 'assistant' %}"
        + (assistant + lead + answer)
        + "{% else %}"
        + (user + parts + close)
        + "{% endif %}{% endfor %}{% if add_generation_prompt %}"
        + assistant
        + "{% endif %}"
    )


def chatml(image: str, *, tagged: bool = False) -> str:
    """As Qwen and its kin speak."""
    turn = "<|im_start|>{}\n"
    return chat(image, turn.format("user"), "<|im_end|>\n", turn.format("assistant"), "<|im_end|>\n", tagged=tagged)


CHATML = ("<|im_start|>", "<|im_end|>")
QWEN_VISION = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
QWEN_IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"
MEAN = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}


def square(side: int) -> dict[str, int]:
    """A size as image processors take it."""
    return {"height": side, "width": side}


def text(tokenizer: Any, **more: Any) -> dict[str, Any]:
    """What every decoder is told."""
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": HIDDEN,
        "intermediate_size": 64,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS,
        "max_position_embeddings": 512,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        **more,
    }


def mrope(sections: list[int], **more: Any) -> dict[str, Any]:
    """Positions in time, height and width, as Qwen's decoders have them."""
    return {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": sections, **more}


def qwen_ids(tokenizer: Any) -> dict[str, int]:
    """Ids of Qwen's placeholders."""
    names = ("vision_start_token_id", "vision_end_token_id", "image_token_id", "video_token_id")
    return dict(zip(names, tokenizer.convert_tokens_to_ids(list(QWEN_VISION)), strict=True))


def clip(side: int = SIDE) -> CLIPVisionConfig:
    """CLIP's tower, with a class token."""
    return CLIPVisionConfig(**VISION, image_size=side, patch_size=PATCH, projection_dim=HIDDEN)


def siglip(side: int = SIDE) -> SiglipVisionConfig:
    """SigLIP's tower, without."""
    return SiglipVisionConfig(**VISION, image_size=side, patch_size=PATCH, vision_use_head=False)


def llava(tokenizer: Any) -> LlavaConfig:
    return LlavaConfig(
        vision_config=clip(),
        text_config=LlamaConfig(**text(tokenizer)),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=4,
    )


def llava_next(tokenizer: Any) -> LlavaNextConfig:
    return LlavaNextConfig(
        vision_config=clip(),
        text_config=LlamaConfig(**text(tokenizer)),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_grid_pinpoints=GRID,
        image_seq_length=4,
    )


def llava_onevision(tokenizer: Any) -> LlavaOnevisionConfig:
    return LlavaOnevisionConfig(
        vision_config=siglip(),
        text_config=Qwen2Config(**text(tokenizer)),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=[[SIDE, SIDE], *GRID],
    )


def qwen2_vl(tokenizer: Any) -> Qwen2VLConfig:
    return Qwen2VLConfig(
        vision_config={"depth": 2, "embed_dim": 32, "num_heads": 2, "hidden_size": HIDDEN, "mlp_ratio": 2},
        text_config=text(tokenizer, rope_parameters=mrope([2, 3, 3])),
        **qwen_ids(tokenizer),
    )


def qwen2_5_vl(tokenizer: Any) -> Qwen2_5_VLConfig:
    vision = {"depth": 2, "hidden_size": 32, "num_heads": 2, "intermediate_size": 64, "out_hidden_size": HIDDEN}
    return Qwen2_5_VLConfig(
        vision_config={**vision, "window_size": 56, "fullatt_block_indexes": [1]},
        text_config=text(tokenizer, rope_parameters=mrope([2, 3, 3])),
        **qwen_ids(tokenizer),
    )


def qwen3_vl(tokenizer: Any) -> Qwen3VLConfig:
    vision = {"depth": 2, "hidden_size": 32, "num_heads": 2, "intermediate_size": 64, "out_hidden_size": HIDDEN}
    return Qwen3VLConfig(
        vision_config={**vision, "num_position_embeddings": 64, "deepstack_visual_indexes": [0, 1]},
        text_config=text(tokenizer, head_dim=HIDDEN // HEADS, rope_parameters=mrope([4, 2, 2], mrope_interleaved=True)),
        **qwen_ids(tokenizer),
    )


def idefics3(tokenizer: Any, kind: type[Any] = Idefics3Config) -> Any:
    return kind(
        vision_config={**VISION, "image_size": 2 * SIDE, "patch_size": PATCH},
        text_config=LlamaConfig(**text(tokenizer)),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        pad_token_id=tokenizer.pad_token_id,
    )


def smolvlm(tokenizer: Any) -> Any:
    return idefics3(tokenizer, SmolVLMConfig)


def internvl(tokenizer: Any) -> InternVLConfig:
    return InternVLConfig(
        vision_config=InternVLVisionConfig(**VISION, image_size=[2 * SIDE] * 2, patch_size=[PATCH] * 2),
        text_config=Qwen2Config(**text(tokenizer)),
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=4,
        tie_word_embeddings=False,
    )


def gemma3(tokenizer: Any) -> Gemma3Config:
    ids = tokenizer.convert_tokens_to_ids(["<start_of_image>", "<end_of_image>", "<image_soft_token>"])
    return Gemma3Config(
        vision_config=siglip(2 * SIDE),
        text_config=Gemma3TextConfig(
            **text(tokenizer, head_dim=HIDDEN // HEADS, query_pre_attn_scalar=16, sliding_window=24),
            layer_types=["sliding_attention"] * 2 + ["full_attention"] + ["sliding_attention"] * 2,
        ),
        mm_tokens_per_image=4,
        **dict(zip(("boi_token_index", "eoi_token_index", "image_token_index"), ids, strict=True)),
    )


def paligemma(tokenizer: Any) -> PaliGemmaConfig:
    return PaliGemmaConfig(
        vision_config=siglip(),
        text_config=GemmaConfig(**text(tokenizer, head_dim=HIDDEN // HEADS)),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        projection_dim=HIDDEN,
        hidden_size=HIDDEN,
        pad_token_id=tokenizer.pad_token_id,
    )


def mllama(tokenizer: Any) -> MllamaConfig:
    vision = {**VISION, "image_size": SIDE, "patch_size": PATCH, "num_global_layers": 1, "max_num_tiles": 4}
    ratios = [[1, 1], [1, 2], [1, 3], [1, 4], [2, 1], [2, 2], [3, 1], [4, 1]]
    more = {"attention_heads": vision.pop("num_attention_heads"), "vision_output_dim": 32 * 3}
    words = text(tokenizer, rope_parameters={"rope_type": "default", "rope_theta": 10000.0})
    image = tokenizer.convert_tokens_to_ids("<|image|>")
    words["vocab_size"] = image  # the image's token is the last, and the head does not know it
    return MllamaConfig(
        vision_config={**vision, **more, "intermediate_layers_indices": [0, 1], "supported_aspect_ratios": ratios},
        text_config={**words, "cross_attention_layers": [1, 3]},
        image_token_index=image,
    )


_FAMILIES: dict[str, Family] = {
    "llava": Family(
        llava,
        lambda: CLIPImageProcessorPil(size=square(SIDE), crop_size=square(SIDE), do_center_crop=False, **MEAN),
        LlavaProcessor,
        chat("<image>\n", "USER: ", " ", "ASSISTANT:", "</s>", start="<s>", lead=" "),
        eos="</s>",
        bos="<s>",
        tokens=("<image>",),
        options={"patch_size": PATCH, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1},
    ),
    "llava_next": Family(
        llava_next,
        lambda: LlavaNextImageProcessorPil(
            size={"shortest_edge": SIDE}, crop_size=square(SIDE), image_grid_pinpoints=GRID, **MEAN
        ),
        LlavaNextProcessor,
        chat("<image>\n", "[INST] ", " [/INST]", "", "</s>", lead=" ", tagged=True),
        eos="</s>",
        bos="<s>",
        tokens=("<image>",),
        options={"patch_size": PATCH, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1},
    ),
    "llava_onevision": Family(
        llava_onevision,
        lambda: LlavaOnevisionImageProcessorPil(size=square(SIDE), image_grid_pinpoints=[[SIDE, SIDE], *GRID], **MEAN),
        LlavaOnevisionProcessor,
        chatml("<image>\n"),
        eos="<|im_end|>",
        tokens=(*CHATML, "<image>", "<video>"),
        options={"num_image_tokens": 4, "vision_feature_select_strategy": "full"},
        video="LlavaOnevisionVideoProcessor",
    ),
    "qwen2_vl": Family(
        qwen2_vl,
        lambda: Qwen2VLImageProcessorPil(size={"shortest_edge": 56 * 56, "longest_edge": 56 * 84}),
        Qwen2VLProcessor,
        chatml(QWEN_IMAGE, tagged=True),
        eos="<|im_end|>",
        tokens=(*CHATML, *QWEN_VISION),
        video="Qwen2VLVideoProcessor",
    ),
    "qwen2_5_vl": Family(
        qwen2_5_vl,
        lambda: Qwen2VLImageProcessorPil(size={"shortest_edge": 56 * 56, "longest_edge": 56 * 84}),
        Qwen2_5_VLProcessor,
        chatml(QWEN_IMAGE),
        eos="<|im_end|>",
        tokens=(*CHATML, *QWEN_VISION),
        video="Qwen2VLVideoProcessor",
    ),
    "qwen3_vl": Family(
        qwen3_vl,
        lambda: Qwen2VLImageProcessorPil(
            size={"shortest_edge": 64 * 64, "longest_edge": 64 * 96}, patch_size=16, **MEAN
        ),
        Qwen3VLProcessor,
        chatml(QWEN_IMAGE),
        eos="<|im_end|>",
        tokens=(*CHATML, *QWEN_VISION),
        video="Qwen3VLVideoProcessor",
    ),
    "idefics3": Family(
        idefics3,
        lambda: Idefics3ImageProcessorPil(size={"longest_edge": 112}, max_image_size={"longest_edge": 56}),
        Idefics3Processor,
        chat(
            "<image>",
            "User:",
            "<end_of_utterance>\n",
            "Assistant:",
            "<end_of_utterance>",
            start="<|begin_of_text|>",
            lead=" ",
            tagged=True,
        ),
        eos="<end_of_utterance>",
        bos="<|begin_of_text|>",
        tokens=("<image>", "<fake_token_around_image>", "<global-img>"),
        options={"image_seq_len": 4},
    ),
    "smolvlm": Family(
        smolvlm,
        lambda: SmolVLMImageProcessorPil(size={"longest_edge": 112}, max_image_size={"longest_edge": 56}),
        Idefics3Processor,  # SmolVLM's own has a video part and needs num2words; pictures are treated alike
        chat(
            "<image>",
            "User:",
            "<end_of_utterance>\n",
            "Assistant:",
            "<end_of_utterance>\n",
            start="<|im_start|>",
            lead=" ",
        ),
        eos="<end_of_utterance>",
        bos="<|im_start|>",
        tokens=("<image>", "<fake_token_around_image>", "<global-img>"),
        options={"image_seq_len": 4},
    ),
    "internvl": Family(
        internvl,
        lambda: GotOcr2ImageProcessorPil(size=square(2 * SIDE), crop_to_patches=True, max_patches=4, **MEAN),
        InternVLProcessor,
        chatml("<IMG_CONTEXT>\n"),
        eos="<|im_end|>",
        tokens=(*CHATML, "<img>", "</img>", "<IMG_CONTEXT>", "<video>"),
        named={
            "start_image_token": "<img>",
            "end_image_token": "</img>",
            "context_image_token": "<IMG_CONTEXT>",
            "video_token": "<video>",
        },
        options={"image_seq_length": 4},
        video="InternVLVideoProcessor",
    ),
    "gemma3": Family(
        gemma3,
        lambda: Gemma3ImageProcessorPil(size=square(2 * SIDE)),
        Gemma3Processor,
        chat(
            "<start_of_image>",
            "<start_of_turn>user\n",
            "<end_of_turn>\n",
            "<start_of_turn>model\n",
            "<end_of_turn>\n",
            start="<bos>",
            tagged=True,
        ),
        eos="<eos>",
        bos="<bos>",
        tokens=("<start_of_turn>", "<end_of_turn>", "<start_of_image>", "<end_of_image>", "<image_soft_token>"),
        named={"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"},
        options={"image_seq_length": 4},
    ),
    "paligemma": Family(
        paligemma,
        lambda: _counting(SiglipImageProcessorPil(size=square(SIDE)), 4),
        PaliGemmaProcessor,
        chat("<image>", "", "", "", "<eos>", lead="{{ '\\n' }}"),  # its prompts end so, by its processor
        eos="<eos>",
        bos="<bos>",
        tokens=("<image>",),
    ),
    "mllama": Family(
        mllama,
        lambda: MllamaImageProcessorPil(size=square(SIDE), max_image_tiles=4),
        MllamaProcessor,
        chat(
            "<|image|>",
            "<|start_header_id|>user<|end_header_id|>\n\n",
            "<|eot_id|>",
            "<|start_header_id|>assistant<|end_header_id|>\n\n",
            "<|eot_id|>",
            start="<|begin_of_text|>",
        ),
        eos="<|eot_id|>",
        bos="<|begin_of_text|>",
        tokens=("<|start_header_id|>", "<|end_header_id|>", "<|python_tag|>", "<|image|>"),
    ),
}
FAMILIES: tuple[str, ...] = tuple(_FAMILIES)
WITH_VIDEO = tuple(name for name, family in _FAMILIES.items() if family.video)
"""Families whose whole processor cannot be built without torchvision."""


def _counting(images: Any, tokens: int) -> Any:
    images.image_seq_length = tokens
    return images


def build(family: str, folder: Path) -> None:
    """Writes the family's tiny model and processor as a checkpoint folder."""
    spec = _FAMILIES[family]
    tokenizer = build_tokenizer(spec)
    processor = _processor_class(family)(
        image_processor=spec.images(), tokenizer=tokenizer, chat_template=spec.template, **spec.options
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForImageTextToText.from_config(spec.config(processor.tokenizer), dtype=torch.float32)
        _enlarge(model)
    ids = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    model.generation_config.update(**ids)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    if spec.video:
        path = folder / "processor_config.json"
        settings = json.loads(path.read_text())
        path.write_text(json.dumps({**settings, "video_processor": {"video_processor_type": spec.video}}))


def build_tokenizer(spec: Family) -> PreTrainedTokenizerFast:
    """Byte-level pairs over the tests' own questions and answers: these take few tokens, other text still encodes."""
    pairs = Tokenizer(models.BPE())
    pairs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    pairs.decoder = decoders.ByteLevel()
    special = [token for token in dict.fromkeys(["<pad>", spec.bos, spec.eos]) if token]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    pairs.train_from_iterator([said for pair in (*FORGET, *RETAIN) for said in pair], trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=pairs,
        pad_token="<pad>",
        bos_token=spec.bos,
        eos_token=spec.eos,
        extra_special_tokens=spec.named,
        padding_side="left",
        model_max_length=512,
    )
    tokenizer.add_tokens([token for token in spec.tokens if token not in special], special_tokens=True)
    return tokenizer


@cache
def _processor_class(family: str) -> type[Any]:
    """The family's own class; where its part for videos needs torchvision, the class without that part."""
    spec = _FAMILIES[family]
    parts = {"get_attributes": classmethod(lambda _cls: ["image_processor", "tokenizer"])}
    return type(spec.processor.__name__, (spec.processor,), parts) if spec.video else spec.processor


@torch.no_grad()
def _enlarge(model: torch.nn.Module) -> None:
    """Fresh weights of 0.02 answer everything alike; larger ones make every token and every image matter."""
    for name, weight in model.named_parameters():
        if "gate" in name and weight.numel() == 1:  # Mllama's gates are closed at first
            weight.fill_(0.5)
        elif weight.ndim > 1 and not weight.any():  # and Gemma's projector is zero
            weight.normal_(std=0.1)
        elif weight.ndim > 1 and "embed" not in name:
            weight.mul_(3)
