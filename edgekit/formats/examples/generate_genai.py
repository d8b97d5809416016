"""Generate text with the model in this folder. Needs only: pip install onnxruntime-genai

    python generate.py "Once upon a time"            continue a text
    python generate.py --chat "Who are you?"         answer, for a model with a chat template
    python generate.py --tokens 200 --temperature 0.8 "Once upon a time"

Prints tokens as they come. As a module: Generator(folder)("Once upon a time", tokens=50) yields pieces of text.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # else importing onnxruntime tells its makers
import onnxruntime_genai

HERE = Path(__file__).resolve().parent


class Generator:
    """A model folder: model.onnx, genai_config.json and the tokenizer."""

    def __init__(self, folder: Path = HERE, threads: int = 0) -> None:
        """`threads`: 0 takes one per processor, at most 4."""
        options = {"intra_op_num_threads": threads or min(4, os.cpu_count() or 1)}
        config = onnxruntime_genai.Config(str(folder))
        config.overlay(json.dumps({"model": {"decoder": {"session_options": options}}}))
        told = json.loads((folder / "genai_config.json").read_text(encoding="utf-8"))
        self.context = int(told["model"]["context_length"])
        self.model = onnxruntime_genai.Model(config)
        self.tokenizer = onnxruntime_genai.Tokenizer(self.model)

    def __call__(self, prompt: str, tokens: int = 100, temperature: float = 0.0, chat: bool = False) -> Iterator[str]:
        """Pieces of the text that follows. `temperature`: 0 always takes the likeliest token."""
        if chat:
            prompt = self._as_chat(prompt)
        ids = self.tokenizer.encode(prompt)
        if len(ids) >= self.context:
            raise SystemExit(f"{len(ids)} tokens do not fit this model's context of {self.context}")
        params = onnxruntime_genai.GeneratorParams(self.model)
        sampling = {"do_sample": True, "temperature": temperature} if temperature > 0 else {"do_sample": False}
        params.set_search_options(max_length=min(len(ids) + tokens, self.context), **sampling)
        generator = onnxruntime_genai.Generator(self.model, params)
        generator.append_tokens(ids)
        stream = self.tokenizer.create_stream()
        while not generator.is_done():
            generator.generate_next_token()
            yield stream.decode(generator.get_next_tokens()[0])

    def _as_chat(self, message: str) -> str:
        messages = json.dumps([{"role": "user", "content": message}])
        try:
            return str(self.tokenizer.apply_chat_template(messages, add_generation_prompt=True))
        except RuntimeError:
            raise SystemExit("this model has no chat template: leave --chat out") from None


def main() -> None:
    parser = argparse.ArgumentParser(description="Generate text with the model in this folder.")
    parser.add_argument("prompt")
    parser.add_argument("--tokens", type=int, default=100, help="at most so many new tokens")
    parser.add_argument("--temperature", type=float, default=0.0, help="0: always the likeliest token")
    parser.add_argument("--chat", action="store_true", help="the prompt is a message to answer")
    parser.add_argument("--threads", type=int, default=0, help="0: one per processor, at most 4")
    options = parser.parse_args()
    if not options.chat:
        print(options.prompt, end="", flush=True)
    for piece in Generator(threads=options.threads)(options.prompt, options.tokens, options.temperature, options.chat):
        print(piece, end="", flush=True)
    print()


if __name__ == "__main__":
    main()
