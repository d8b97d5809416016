"""Generate text with the model in this folder. Needs only: pip install llama-cpp-python

    python generate.py "Once upon a time"            continue a text
    python generate.py --chat "Who are you?"         answer, for a model with a chat template
    python generate.py --tokens 200 --temperature 0.8 "Once upon a time"

Prints tokens as they come. As a module: Generator(folder)("Once upon a time", tokens=50) yields pieces of text.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llama_cpp import Llama

HERE = Path(__file__).resolve().parent


class Generator:
    """A model folder: model.gguf."""

    def __init__(self, folder: Path = HERE, threads: int = 0, context: int = 0) -> None:
        """`threads`: 0 takes one per processor, at most 4. `context` in tokens: 0 takes the model's own."""
        path = str(folder / "model.gguf")
        self.model = Llama(path, n_ctx=context, n_threads=threads or min(4, os.cpu_count() or 1), verbose=False)

    def __call__(self, prompt: str, tokens: int = 100, temperature: float = 0.0, chat: bool = False) -> Iterator[str]:
        """Pieces of the text that follows. `temperature`: 0 always takes the likeliest token."""
        options: dict[str, Any] = {"max_tokens": tokens, "temperature": temperature, "stream": True}
        if not chat:
            for part in self.model.create_completion(prompt, **options):
                yield part["choices"][0]["text"]
            return
        if "tokenizer.chat_template" not in self.model.metadata:
            raise SystemExit("this model has no chat template: leave --chat out")
        for part in self.model.create_chat_completion([{"role": "user", "content": prompt}], **options):
            yield part["choices"][0]["delta"].get("content") or ""

    def close(self) -> None:
        self.model.close()


def main() -> None:
    parser = argparse.ArgumentParser(description="Generate text with the model in this folder.")
    parser.add_argument("prompt")
    parser.add_argument("--tokens", type=int, default=100, help="at most so many new tokens")
    parser.add_argument("--temperature", type=float, default=0.0, help="0: always the likeliest token")
    parser.add_argument("--chat", action="store_true", help="the prompt is a message to answer")
    parser.add_argument("--threads", type=int, default=0, help="0: one per processor, at most 4")
    options = parser.parse_args()
    generator = Generator(threads=options.threads)
    if not options.chat:
        print(options.prompt, end="", flush=True)
    for piece in generator(options.prompt, options.tokens, options.temperature, options.chat):
        print(piece, end="", flush=True)
    print()
    generator.close()


if __name__ == "__main__":
    main()
