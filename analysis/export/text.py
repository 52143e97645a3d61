"""Text in, text out: a TorchScript module with normalisation and vocabulary inside.

TorchScript's strings are bytes, and it has neither regular expressions nor Unicode tables. So what
`model.text.normalise` makes of each character is worked out here, for every code point, and the
module holds a table from the UTF-8 sequence of each character that leaves a letter or nothing to
what it leaves; all others are a space. `normalise` treats characters one by one but for two cases
that make no difference: a capital sigma's lower case depends on its neighbours, and is a space
either way; and combining marks are reordered, of which those that count as spaces stay behind the
letter that they stand behind.

Bytes that are not UTF-8 are read as Python's ``errors="replace"`` reads them: as a space.

This file is compiled by TorchScript, which reads annotations as they stand.
"""

import sys

import torch
from torch import Tensor, nn

from analysis.export.build import build
from analysis.export.quiet import quiet
from model.model_directory import DialogueModel
from model.text import normalise
from model.vocabulary import EOS, PAD, UNK

# Shapes: B batch, S source length, T target length.

_SURROGATES = range(0xD800, 0xE000)  # halves of UTF-16 pairs, which UTF-8 has no sequence for


def ascii_table() -> list[str]:
    """What each of the 128 ASCII characters leaves in normalised text."""
    return [_left_by(chr(code)) for code in range(128)]


def beyond_ascii_table() -> dict[str, str]:
    """What every other character leaves that is not a space: "" or letters."""
    table: dict[str, str] = {}
    # Most code points are not assigned or leave a space; a thousand of them at once say so.
    for start in range(128, sys.maxunicode + 1, 1024):
        block = [chr(c) for c in range(start, min(start + 1024, sys.maxunicode + 1))]
        block = [char for char in block if ord(char) not in _SURROGATES]
        left = f" {normalise('a' + 'ba'.join(block) + 'b')} "
        if left == " a b" + "a b" * (len(block) - 1) + " ":
            continue
        table |= {char: what for char in block if (what := _left_by(char)) != " "}
    return table


def _left_by(char: str) -> str:
    """What stands between two letters when a character stood there."""
    return normalise(f"a{char}b")[1:-1]


class TextNormaliser(nn.Module):
    """`model.text.normalise` over UTF-8 bytes.

    Attributes:
        ascii: `ascii_table`.
        beyond: `beyond_ascii_table`.
    """

    ascii: list[str]
    beyond: dict[str, str]

    def __init__(self) -> None:
        super().__init__()
        self.ascii = ascii_table()
        self.beyond = beyond_ascii_table()

    def forward(self, text: str) -> list[str]:
        """The words of the normalised text."""
        words: list[str] = []
        word: list[str] = []
        for left in self.characters(list(text)):
            for char in list(left):
                if len(word) > 0 and char in [" ", ".", "!", "?"]:
                    words.append("".join(word))
                    word.clear()
                if char != " ":
                    word.append(char)
        if len(word) > 0:
            words.append("".join(word))
        return words

    @torch.jit.export
    def characters(self, units: list[str]) -> list[str]:
        """What each character leaves, of the bytes of a text."""
        left: list[str] = []
        at = 0
        while at < len(units):
            lead = ord(units[at])
            if lead < 0x80:
                left.append(self.ascii[lead])
                at += 1
            else:
                length = 1
                if lead >= 0xF0:
                    length = 4
                elif lead >= 0xE0:
                    length = 3
                elif lead >= 0xC0:
                    length = 2
                end = at + 1
                while end < len(units) and end < at + length and self.continues(units[end]):
                    end += 1
                sequence = "".join(units[at:end])
                if sequence in self.beyond:
                    left.append(self.beyond[sequence])
                else:
                    left.append(" ")
                at = end
        return left

    @torch.jit.export
    def continues(self, unit: str) -> bool:
        """Whether a byte can only stand within a sequence."""
        return ord(unit) >= 0x80 and ord(unit) < 0xC0


class TextSearch(nn.Module):
    """Replies to texts, with everything inside that it takes.

    Args:
        search: The greedy search, fp32.
        words: The vocabulary in the order of its ids.
        max_words: Longest reply.
    """

    ids: dict[str, int]
    words: list[str]

    def __init__(self, search: nn.Module, words: list[str], max_words: int) -> None:
        super().__init__()
        # TorchScript sees no global names.
        self.pad, self.end, self.unknown = PAD, EOS, UNK
        self.search = search
        self.normaliser = TextNormaliser()
        self.words = words
        self.ids = {word: id_ for id_, word in enumerate(words)}
        self.max_words = max_words

    def forward(self, texts: list[str]) -> list[str]:
        """Replies to each text (UTF-8); "" where no word of it can be read."""
        sources: list[list[int]] = []
        rows: list[int] = []
        for i, text in enumerate(texts):
            source = self.encode(text)
            if len(source) > 1:
                sources.append(source)
                rows.append(i)
        replies = ["" for _ in texts]
        if len(rows) > 0:
            decoded = self.decode(sources)
            for i, row in enumerate(rows):
                replies[row] = decoded[i]
        return replies

    @torch.jit.export
    def normalise(self, text: str) -> str:
        """The text as the model sees it, as `model.text.normalise`."""
        return " ".join(self.normaliser(text))

    @torch.jit.export
    def encode(self, text: str) -> list[int]:
        """Word ids of a text, EOS at the end."""
        ids: list[int] = []
        for word in self.normaliser(text):
            if word in self.ids:
                ids.append(self.ids[word])
            else:
                ids.append(self.unknown)
        ids.append(self.end)
        return ids

    @torch.jit.export
    def decode(self, sources: list[list[int]]) -> list[str]:
        """Replies to sources, each ending with EOS."""
        lengths = torch.tensor([len(source) for source in sources])
        width = int(lengths.max())
        padded = torch.tensor([source + [self.pad] * (width - len(source)) for source in sources])
        words: Tensor = self.search(padded, lengths, self.max_words, True)[0]
        rows: list[list[int]] = words.tolist()
        replies: list[str] = []
        for row in rows:
            reply: list[str] = []
            ended = False
            for id_ in row:
                ended = ended or id_ == self.end
                if not ended and id_ != self.pad:
                    reply.append(self.words[id_])
            replies.append(" ".join(reply))
        return replies


def build_text(model: DialogueModel) -> torch.jit.ScriptModule:
    """Builds the text-in text-out form of a model, fp32, for the CPU.

    Called with a list of texts it returns their replies, equal to `DialogueModel.replies`.

    Args:
        model: The model; its weights are copied.
    """
    search = build(model, form="script", precision="fp32", device="cpu")
    text = TextSearch(search, model.vocabulary.to_list(), model.config.data.max_length)
    with quiet():
        module: torch.jit.ScriptModule = torch.jit.script(text.eval())
    return module
