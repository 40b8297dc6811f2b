"""A model behind a server with OpenAI's interface: vLLM, SGLang, llama.cpp, `transformers serve`, paid services."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from unmirage.backends.manner import USUAL, Manner
from unmirage.backends.messages import messages
from unmirage.backends.prompts import Prompt, image_bytes
from unmirage.backends.protocol import Reply, Settled
from unmirage.errors import UserError
from unmirage.schema import content_hash
from unmirage.servers import Chat, ChatServer


class OpenAIServerBackend:
    """Answers prompts through a server, greedily (temperature 0, a fixed seed), at most `max_new_tokens` tokens each.

    With a temperature above 0 in `manner`, temperature and seed go to the server; whether it minds the seed is its own
    affair. The beginning of an answer cannot be forced there.
    What the weights behind a model's name are, only the server knows: the identity holds the name and what the server
    tells of it, not the address, so that a run can go on with the same model at another port.
    """

    def __init__(
        self,
        server: ChatServer,
        *,
        max_new_tokens: int = 64,
        seed: int = 0,
        manner: Manner = USUAL,
        known: Mapping[str, Any] = {},
    ) -> None:
        """Nothing is sent yet. `known`: the identity in the run that is gone on with, where there is one.

        Raises UserError where `manner` forces the beginning of answers.
        """
        manner.refuse_prefix("openai_server")
        self.server = server
        self.settings: dict[str, float] = {"temperature": 0, "seed": seed, "max_tokens": max_new_tokens}
        if manner.samples:
            self.settings |= {"temperature": manner.temperature, "seed": manner.seed}
        self._known = known
        self._remembered = False

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Name, what the server's list says of it, settings.

        Where the server is not there, what is known of it counts: a run that has all its answers needs no server.
        Raises UserError where nothing is known, or it is of another model or other settings.
        """
        try:
            return self._told()
        except UserError:
            own = {"model": self.server.model, **self.settings}
            if own.items() - self._known.items():
                raise
            self._remembered = True
            return dict(self._known)

    def _told(self) -> dict[str, Any]:
        about = {f"served_{name}": value for name, value in self.server.about().items()}
        return {"model": self.server.model, **about, **self.settings}

    def _confirm(self) -> None:
        """Raises UserError where the server is still not there, or is another one than what was known of it."""
        if self._remembered and self._told() != self.identity:
            raise UserError(
                f"{self.server.url} says of {self.server.model} other things than when this run began; "
                "give another run folder."
            )
        self._remembered = False

    def key(self, prompt: Prompt) -> str:
        """Content hash of everything that is known to decide the answer: identity, question, image bytes."""
        pixels = image_bytes(prompt.image, prompt.query) if prompt.image else b""
        return content_hash(self.identity, prompt.question, pixels)

    def answer(self, prompts: Sequence[Prompt], settled: Settled | None = None) -> Iterator[list[Reply]]:
        """Yield each reply as soon as it and all before it are there; answers are generated whole.

        A prompt whose picture cannot be used gets a reply with an error, and is not sent.
        """
        self._confirm()
        unusable: deque[Reply | None] = deque()
        for done in self.server.chats(self._requests(prompts, unusable)):
            yield from _until_sent(unusable)
            yield [Reply(done.text, done.error, done.finish)]
        yield from _until_sent(unusable)

    def _requests(self, prompts: Sequence[Prompt], unusable: deque[Reply | None]) -> Iterator[Chat]:
        """The requests of prompts that can be sent; `unusable` gets an error for each other, None for each of these."""
        for prompt in prompts:
            try:
                request = self.request(prompt)
            except UserError as error:
                unusable.append(Reply("", error=str(error)))
                continue
            unusable.append(None)
            yield request

    def request(self, prompt: Prompt) -> Chat:
        """The prompt as a request."""
        return Chat(messages(prompt), self.settings)


def _until_sent(unusable: deque[Reply | None]) -> Iterator[list[Reply]]:
    """Takes away the prompts up to and with the next one that was sent; yields the errors of those before it."""
    while unusable and (error := unusable.popleft()) is not None:
        yield [error]
