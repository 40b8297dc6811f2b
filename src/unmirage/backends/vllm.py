"""vLLM in this process (offline `LLM.chat`): much faster than `generate` on a GPU, imported only when it is asked."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from unmirage.backends.checkpoint import adapted, revision
from unmirage.backends.manner import USUAL, Manner
from unmirage.backends.messages import messages
from unmirage.backends.prompts import Prompt, image_bytes
from unmirage.backends.protocol import Reply, Settled
from unmirage.errors import UserError
from unmirage.runs import digest_file
from unmirage.schema import Finish, content_hash

Conversation = list[dict[str, Any]]
"""Messages in OpenAI's form."""
_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""What `max_lora_rank` may be."""
_FINISHES: dict[str, Finish] = {"stop": "stop", "length": "length"}
_MERGE = "merge it into its model first, as docs/backends.md shows, and ask that one."


class VllmBackend:
    """Answers prompts with the checkpoint in a folder, greedily, at most `max_new_tokens` tokens each, through vLLM.

    The folder may hold a LoRA adapter; or `adapter` names one for the folder's model. An adapter that vLLM would
    apply only in part is refused. `engine` are further arguments of `vllm.LLM` (tensor_parallel_size, ...). So many
    prompts as `batch_size` says are handed over at once; vLLM does its own batching among them. The engine starts with
    the first prompt that is asked; a key needs only files.
    """

    def __init__(
        self,
        folder: Path,
        *,
        adapter: Path | None = None,
        batch_size: int = 64,
        max_new_tokens: int = 64,
        manner: Manner = USUAL,
        engine: Mapping[str, Any] | None = None,
    ) -> None:
        """Raises UserError where vLLM is missing, the folder holds no checkpoint, the adapter cannot be applied, or
        `manner` forces the beginning of answers.
        """
        manner.refuse_prefix("vllm")
        _check_installed()
        base = adapted(folder)
        if base and adapter:
            raise UserError(f"{folder} is an adapter itself; give the model's folder together with {adapter}.")
        self.folder, self.adapter = base or folder, adapter or (folder if base else None)
        self.batch_size, self.engine = batch_size, dict(engine or {})
        self.settings = {"temperature": 0.0, "max_tokens": max_new_tokens, "seed": 0}
        if manner.samples:
            self.settings |= {"temperature": manner.temperature, "seed": manner.seed}
        self.identity = self._identity(revision(folder))
        if self.adapter:
            check_adapter(self.adapter, self.folder)

    def _identity(self, weights: str) -> dict[str, Any]:
        invariant = os.environ.get("VLLM_BATCH_INVARIANT")
        return {
            "backend": "vllm",
            "revision": weights,
            **({"adapter": _digest(self.adapter)} if self.adapter else {}),
            **({"engine": self.engine} if self.engine else {}),
            **({"batch_invariant": invariant} if invariant else {}),
            **self.settings,
        }

    def key(self, prompt: Prompt) -> str:
        """Content hash of weights, adapter, settings, question and image bytes; the weights hold the chat template."""
        pixels = image_bytes(prompt.image, prompt.query) if prompt.image else b""
        return content_hash(self.identity, prompt.question, pixels)

    def answer(self, prompts: Sequence[Prompt], settled: Settled | None = None) -> Iterator[list[Reply]]:
        """Yield the replies `batch_size` at a time, in order; answers are generated whole."""
        for start in range(0, len(prompts), self.batch_size):
            yield self._replies(prompts[start : start + self.batch_size])

    def _replies(self, prompts: Sequence[Prompt]) -> list[Reply]:
        """A prompt whose picture cannot be used gets a reply with an error, and is not handed over."""
        conversations: list[Conversation] = []
        errors: dict[int, Reply] = {}
        for number, prompt in enumerate(prompts):
            try:
                conversations.append(messages(prompt))
            except UserError as error:
                errors[number] = Reply("", error=str(error))
        replies = iter(self._chat(conversations) if conversations else [])
        return [errors.get(number) or next(replies) for number in range(len(prompts))]

    def _chat(self, conversations: list[Conversation]) -> list[Reply]:
        """One prompt that vLLM does not take (too long, as a rule) must not take the others down with it."""
        lora = {"lora_request": self._lora} if self._lora else {}
        try:
            outputs = self._llm.chat(conversations, self._sampling, use_tqdm=False, **lora)
        except Exception as error:
            if not _is_rejection(error):
                raise
            if len(conversations) == 1:
                return [Reply("", error=f"vLLM: {_first_line(error)}")]
            half = len(conversations) // 2
            return self._chat(conversations[:half]) + self._chat(conversations[half:])
        if len(outputs) != len(conversations):
            raise UserError(
                f"vLLM answered {len(outputs)} of {len(conversations)} questions; run the same command again."
            )
        return [_reply(output) for output in outputs]

    @cached_property
    def _llm(self) -> Any:
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
        from vllm import LLM

        lora: dict[str, Any] = {}
        if self.adapter:
            lora = {"enable_lora": True, "max_loras": 1, "max_lora_rank": _max_rank(self.adapter)}
        try:
            return LLM(model=str(self.folder), seed=0, limit_mm_per_prompt={"image": 1}, **lora, **self.engine)
        except Exception as error:  # of the model, the GPU or an argument: vLLM raises whatever it ran into
            raise UserError(
                f"{self.folder}: vLLM cannot load the model ({type(error).__name__}: {_first_line(error)}); "
                "what it printed above says more, and the backend hugging_face loads more kinds of models."
            ) from error

    @cached_property
    def _sampling(self) -> Any:
        from vllm import SamplingParams

        return SamplingParams(**self.settings)

    @cached_property
    def _lora(self) -> Any:
        if self.adapter is None:
            return None
        from vllm.lora.request import LoRARequest

        return LoRARequest("adapter", 1, str(self.adapter.resolve()))


def check_adapter(adapter: Path, base: Path) -> None:
    """Raises UserError where vLLM would leave part of an adapter out or scale it otherwise, silently or not.

    By default vLLM applies LoRA to the language model alone and ignores weights on vision tower and projector. Whole
    modules (`modules_to_save`), DoRA, and ranks or scales that differ by module are not applied by every version.
    """
    config = _adapter_config(adapter)
    for name in ("modules_to_save", "use_dora", "rank_pattern", "alpha_pattern"):
        if config.get(name):
            raise UserError(f"{adapter}: vLLM does not apply an adapter with {name} as it was trained; {_MERGE}")
    decoder, weights = _decoder_name(base), _adapted_modules(adapter)
    outside = [name for name in weights if not name.startswith(f"{decoder}.")]
    if outside:
        raise UserError(
            f"{adapter}: {len(outside)} of the {len(weights)} modules that the adapter changes lie outside the "
            f"language model ({decoder}), such as {outside[0]}; vLLM applies none of them and does not say so; {_MERGE}"
        )


def _adapter_config(adapter: Path) -> dict[str, Any]:
    path = adapter / "adapter_config.json"
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); give the folder of a LoRA adapter.") from error
    return found


def _adapted_modules(adapter: Path) -> list[str]:
    """Names of the modules that the stored weights change, in the model's own naming."""
    from safetensors import SafetensorError, safe_open

    path = adapter / "adapter_model.safetensors"
    try:
        with safe_open(path, framework="numpy") as weights:
            keys = list(weights.keys())
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} cannot be read ({error}); give the folder of a LoRA adapter.") from error
    return sorted({key.removeprefix("base_model.model.").split(".lora_")[0] for key in keys})


def _decoder_name(base: Path) -> str:
    """Where in the model its language model lies; told by the model itself, built without weights."""
    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText

    try:
        with torch.device("meta"):
            model = AutoModelForImageTextToText.from_config(AutoConfig.from_pretrained(base, local_files_only=True))
        decoder = model.get_decoder()
    except Exception as error:
        raise UserError(f"{base}: the model cannot be built ({_first_line(error)}); {_MERGE}") from error
    names: list[str] = [name for name, module in model.named_modules() if module is decoder]
    return names[0]


def _max_rank(adapter: Path) -> int:
    rank = int(_adapter_config(adapter)["r"])
    fitting = [largest for largest in _RANKS if largest >= rank]
    if not fitting:
        raise UserError(f"{adapter}: its rank {rank} is above {_RANKS[-1]}, the highest that vLLM takes; {_MERGE}")
    return fitting[0]


def _digest(adapter: Path) -> str:
    files = [adapter / name for name in ("adapter_config.json", "adapter_model.safetensors")]
    if absent := [path for path in files if not path.is_file()]:
        raise UserError(f"{absent[0]} does not exist; give the folder of a LoRA adapter.")
    return content_hash([(path.name, digest_file(path)) for path in files])


def _reply(output: Any) -> Reply:
    said = output.outputs[0]
    finish = _FINISHES.get(str(said.finish_reason))
    if finish is None:
        return Reply("", error=f"vLLM broke the answer off ({said.finish_reason})")
    return Reply(said.text.strip(), finish=finish)


def _is_rejection(error: Exception) -> bool:
    """Whether vLLM does not take a request: ValueError in earlier versions, an error class of its own in later ones."""
    return isinstance(error, ValueError) or any(kind.__name__ == "VLLMClientError" for kind in type(error).__mro__)


def _check_installed() -> None:
    if "vllm" not in sys.modules and importlib.util.find_spec("vllm") is None:
        raise UserError(
            "the backend vllm needs the package vllm, which is not installed; install unmirage[vllm] in an environment "
            "of its own where your GPU allows it, or use --backend hugging_face or a server."
        )


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).split("\n")[0]
