# SPDX-License-Identifier: Apache-2.0
"""Make the demo data set `home-intents`: requests to a home assistant, each with its intent.

The sentences are made by templates (`home_intents_grammar.toml`, beside this file), not collected from
people. The run is deterministic: it rewrites the same bytes each time.

    python -m benchmarks.make_home_intents
"""

from __future__ import annotations

import argparse
import csv
import random
import re
import tomllib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

SEED = 20240607
SPLITS = ("train", "validation", "test")
GRAMMAR = Path(__file__).with_name("home_intents_grammar.toml")
OUT = Path(__file__).resolve().parent.parent / "edgekit" / "data" / "home_intents"

# Sentences per intent and split: drawn evenly from this range, so that the classes are not quite even.
SIZES = {"train": (100, 108), "validation": (13, 16), "test": (30, 36)}
# Part of the validation sentences that comes from train templates (with other values and noise).
VALIDATION_FROM_TRAIN = 0.3
# How often a validation or test sentence takes a value (or wrapper) that train never shows.
HELD_OUT_VALUE = 0.5
# How often one bare request may be used again, inside its own split only, with other words around it.
MAX_REUSE = 3

WRAP = 0.45
CORRECT_ONESELF = 0.06
HESITATE = 0.12
REPEAT_START = 0.03
UNCONTRACT = 0.15
DROP_APOSTROPHE = 0.2
TYPO = 0.15
SECOND_TYPO = 0.15
# The ways a sentence is written down: as typed with care, as typed in a chat, as a speech recognizer gives it.
STYLES = {"written": 0.42, "chat": 0.26, "speech": 0.32}

# Slots whose value a speaker may correct in mid-sentence ("the kitchen, no wait, the den").
CORRECTABLE = frozenset(
    "room light lights lamp color percent temp clock hour duration cooktime item door blinds camera artist genre "
    "oneday calday city wday who song appliance cycler consumer".split()
)
CORRECTIONS = ("{}, no wait, {}", "{}, I mean {}", "{}, sorry, {}", "{}, uh no, {}", "{}, make that {}")
FILLERS = ("um", "uh", "er", "hmm", "like", "you know")
BEFORE_FILLER = frozenset("the a an my to at for in on some".split())
UNCONTRACTED = (
    (r"\bit's (?!been)", "it is "),
    (r"\bwhat's\b", "what is"),
    (r"\bwho's\b", "who is"),
    (r"\bthere's\b", "there is"),
    (r"\bI'm\b", "I am"),
    (r"\bwe're\b", "we are"),
    (r"\bI'd (like|love|rather)\b", r"I would \1"),
    (r"\bcan't\b", "cannot"),
    (r"\bdon't\b", "do not"),
    (r"\bI've\b", "I have"),
)
NEIGHBORS = {
    **{"q": "wa", "w": "qes", "e": "wrd", "r": "etf", "t": "ryg", "y": "tuh", "u": "yij", "i": "uok"},
    **{"o": "ipl", "p": "ol", "a": "qsz", "s": "adw", "d": "sfe", "f": "dgr", "g": "fht", "h": "gjy"},
    **{"j": "hku", "k": "jli", "l": "kop", "z": "xas", "x": "zcs", "c": "xvd", "v": "cbf", "b": "vng"},
    **{"n": "bmh", "m": "nj"},
}
ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
).split()
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
KINDS = {"": "command", "!": "fragment", "?": "question", ".": "statement"}


@dataclass(frozen=True)
class Intent:
    """One intent: what it means and its templates by split."""

    name: str
    about: str
    templates: dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class Grammar:
    """The tables of the grammar file."""

    slots: dict[str, list[str]]
    held_out_slots: dict[str, list[str]]
    wrappers: dict[str, list[str]]
    held_out_wrappers: dict[str, list[str]]
    intents: tuple[Intent, ...]


@dataclass(frozen=True)
class Example:
    """One labelled sentence."""

    text: str
    intent: str


@dataclass
class Draw:
    """The state of one sentence while its template is filled in."""

    rng: random.Random
    held_out: bool
    used: set[str] = field(default_factory=set)
    corrected: bool = False


def load_grammar(path: Path = GRAMMAR) -> Grammar:
    """Read the grammar and check that no template is in two lists."""
    table = tomllib.loads(path.read_text(encoding="utf-8"))
    intents = tuple(
        Intent(name, entry["about"], {split: tuple(entry[split].split("\n")[:-1]) for split in SPLITS})
        for name, entry in table["intents"].items()
    )
    templates = Counter(t for intent in intents for split in SPLITS for t in intent.templates[split])
    repeated = [template for template, count in templates.items() if count > 1]
    if repeated:
        raise ValueError(f"templates used twice: {repeated}")
    return Grammar(
        table["slots"], table["held_out_slots"], table["wrappers"], table["held_out_wrappers"], intents
    )


def key(text: str) -> str:
    """The form in which sentences are compared: letters and digits only, lower case."""
    return " ".join(re.findall(r"[a-z0-9]+", text.lower().replace("'", "")))


def weighted(rng: random.Random, weights: dict[str, float]) -> str:
    """One key of `weights`, as often as its weight says."""
    return rng.choices(list(weights), list(weights.values()))[0]


# Filling in a template


def choose_value(grammar: Grammar, slot: str, draw: Draw) -> str:
    """A value of a slot not yet used in this sentence."""
    values: Sequence[str] = grammar.slots[slot]
    if draw.held_out and slot in grammar.held_out_slots and draw.rng.random() < HELD_OUT_VALUE:
        values = grammar.held_out_slots[slot]
    for _ in range(20):
        value = fill(grammar, draw.rng.choice(values), draw)
        if value not in draw.used:
            break
    draw.used.add(value)
    return value


def fill(grammar: Grammar, template: str, draw: Draw) -> str:
    """Expand `[x]`, `(a|b)` and `{slot}`, the innermost first."""
    rng = draw.rng

    def optional(match: re.Match[str]) -> str:
        return match[1] if rng.random() < 0.5 else ""

    def choice(match: re.Match[str]) -> str:
        return rng.choice(match[1].split("|"))

    def slot(match: re.Match[str]) -> str:
        name = match[1]
        value = choose_value(grammar, name, draw)
        if name in CORRECTABLE and not draw.corrected and rng.random() < CORRECT_ONESELF:
            draw.corrected = True
            other = choose_value(grammar, name, draw)
            return rng.choice(CORRECTIONS).format(value, other)
        return value

    text = template
    for pattern, expand in ((r"\[([^\[\]]*)\]", optional), (r"\(([^()]*)\)", choice)):
        while re.search(pattern, text):
            text = re.sub(pattern, expand, text)
    text = re.sub(r"\{(\w+)\}", slot, text)
    return re.sub(r" +", " ", text).strip()


def wrap(grammar: Grammar, core: str, kind: str, draw: Draw) -> str:
    """Put a polite or chatty phrase around a bare request, or only its end mark after it."""
    end = {"command": ".", "fragment": draw.rng.choice(".!"), "question": "?", "statement": "."}[kind]
    if draw.rng.random() >= WRAP:
        return core + end
    wrappers: Sequence[str] = grammar.wrappers[kind]
    if draw.held_out and draw.rng.random() < HELD_OUT_VALUE:
        wrappers = grammar.held_out_wrappers[kind]
    text = draw.rng.choice(wrappers).format(core)
    return text if text[-1] in ".?!" else text + end


# Noise


def hesitate(text: str, rng: random.Random) -> str:
    """Put a filler word at the start or before a small word, or start twice."""
    words = text.split(" ")
    if rng.random() < HESITATE:
        places = [i for i, word in enumerate(words) if i and word in BEFORE_FILLER]
        if places and rng.random() < 0.6:
            words.insert(rng.choice(places), rng.choice(FILLERS))
        else:
            words.insert(0, rng.choice(FILLERS[:4]) + ",")
    elif rng.random() < REPEAT_START and len(words) > 3:
        words = words[: rng.choice((1, 2))] + words
    return " ".join(words)


def uncontract(text: str, rng: random.Random) -> str:
    """Write some contractions out."""
    if rng.random() < UNCONTRACT:
        for pattern, long in UNCONTRACTED:
            text = re.sub(pattern, long, text)
    return text


def number_words(number: int) -> str:
    """A number from 0 to 999 in words."""
    if number >= 100:
        rest = f" {number_words(number % 100)}" if number % 100 else ""
        return f"{ONES[number // 100]} hundred{rest}"
    if number < 20:
        return ONES[number]
    return TENS[number // 10 - 2] + (f" {ONES[number % 10]}" if number % 10 else "")


def speak_numbers(text: str) -> str:
    """Write numbers and clock times as they are said."""

    def say(match: re.Match[str]) -> str:
        hour, minute = int(match[1]), match[2]
        if minute is None:
            return number_words(hour)
        return f"{number_words(hour)} {'oh ' if minute[0] == '0' else ''}{number_words(int(minute))}"

    return re.sub(r"(\d+)(?::(\d\d))?", say, text)


def set_style(text: str, rng: random.Random) -> str:
    """Write the sentence with care, as in a chat or as a speech recognizer would."""
    style = weighted(rng, STYLES)
    if style == "written":
        return text[0].upper() + re.sub(r"(?<=[?!.] )[a-z]", lambda match: match[0].upper(), text[1:])
    text = text.lower()
    if style == "speech":
        return " ".join(re.sub(r"[,.?!]", "", speak_numbers(text).replace("-", " ")).split())
    text = text.rstrip(".!")
    if rng.random() < 0.5:
        text = text.rstrip("?")
    if rng.random() < 0.4:
        text = text.replace(",", "")
    if rng.random() < DROP_APOSTROPHE:
        text = text.replace("'", "")
    return text


def misspell(word: str, rng: random.Random) -> str:
    """Drop, double, swap or replace one letter, never the first."""
    at = rng.randrange(1, len(word) - 1)
    how = rng.choice(("drop", "double", "swap", "neighbor", "neighbor"))
    if how == "drop":
        return word[:at] + word[at + 1 :]
    if how == "double":
        return word[: at + 1] + word[at:]
    if how == "swap":
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    return word[:at] + rng.choice(NEIGHBORS[word[at]]) + word[at + 1 :]


def add_typos(text: str, rng: random.Random, known: frozenset[str]) -> str:
    """Misspell one word of four letters or more, now and then two; never into another word in use."""
    if rng.random() >= TYPO:
        return text
    for _ in range(2 if rng.random() < SECOND_TYPO else 1):
        words = text.split(" ")
        places = [i for i, word in enumerate(words) if re.fullmatch(r"[a-z]{4,}", word)]
        if not places:
            return text
        place = rng.choice(places)
        wrong = misspell(words[place], rng)
        if wrong not in known:
            words[place] = wrong
        text = " ".join(words)
    return text


# The data set


def words_of(grammar: Grammar) -> frozenset[str]:
    """All words of the grammar."""
    texts: list[str] = []
    for table in (grammar.slots, grammar.held_out_slots, grammar.wrappers, grammar.held_out_wrappers):
        texts += [value for values in table.values() for value in values]
    texts += [t for intent in grammar.intents for split in SPLITS for t in intent.templates[split]]
    return frozenset(re.findall(r"[a-z]+", " ".join(texts).lower()))


class Maker:
    """Makes sentences and keeps all of them distinct."""

    def __init__(self, grammar: Grammar) -> None:
        self.grammar = grammar
        self.known = words_of(grammar)
        self.taken: set[str] = set()
        self.cores: dict[str, str] = {}
        self.uses: Counter[str] = Counter()

    def make(self, template: str, split: str, rng: random.Random) -> str | None:
        """One new sentence from a template, or None where it has hardly any left."""
        mark = template[-1] if template[-1] in KINDS else ""
        body = template.removesuffix(mark)
        for attempt in range(40):
            draw = Draw(rng, held_out=split != "train")
            core = fill(self.grammar, body, draw)
            core_key = key(core)
            reuse = MAX_REUSE if attempt >= 20 else 1
            if self.cores.get(core_key, split) != split or self.uses[core_key] >= reuse:
                continue
            text = wrap(self.grammar, core, KINDS[mark], draw)
            text = uncontract(hesitate(text, rng), rng)
            text = add_typos(set_style(text, rng), rng, self.known)
            if key(text) in self.taken:
                continue
            self.taken.add(key(text))
            self.cores[core_key] = split
            self.uses[core_key] += 1
            return text
        return None

    def from_templates(self, templates: Sequence[str], split: str, rng: random.Random) -> Iterator[str]:
        """Sentences from all templates in turn, in a new order each round, until none has any left."""
        left = list(templates)
        while left:
            rng.shuffle(left)
            for template in list(left):
                text = self.make(template, split, rng)
                if text is None:
                    left.remove(template)
                else:
                    yield text

    def split(self, split: str) -> list[Example]:
        """All examples of a split, shuffled."""
        examples: list[Example] = []
        for intent in self.grammar.intents:
            rng = random.Random(f"{SEED}/{split}/{intent.name}")
            size = rng.randint(*SIZES[split])
            old = round(size * VALIDATION_FROM_TRAIN) if split == "validation" else 0
            for source, count in ((split, size - old), ("train", old)):
                texts = self.from_templates(intent.templates[source], split, rng)
                for _ in range(count):
                    examples.append(Example(next(texts), intent.name))
        random.Random(f"{SEED}/{split}").shuffle(examples)
        return examples


def write_csv(path: Path, examples: Sequence[Example]) -> None:
    """Write examples as UTF-8 with LF ends of line."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("text", "intent"))
        writer.writerows((example.text, example.intent) for example in examples)


def main() -> None:
    """Write the three splits and the data card."""
    parser = argparse.ArgumentParser(description="Make the data set home-intents.")
    parser.add_argument("--out", type=Path, default=OUT, help="folder to write to")
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    grammar = load_grammar()
    maker = Maker(grammar)
    splits = {split: maker.split(split) for split in SPLITS}
    for split, examples in splits.items():
        write_csv(out / f"{split}.csv", examples)
        print(f"{split}: {len(examples)} sentences")


if __name__ == "__main__":
    main()
