"""The baseline to beat: the published chatbot's algorithm, written plainly. FROZEN.

What a careful reader of the PyTorch chatbot tutorial writes (Inkawhich 2018, "Chatbot Tutorial",
https://pytorch.org/tutorials/beginner/chatbot_tutorial.html), with the framework's default
optimizer settings: batches built in Python, a decoder called word by word, softmax then gather then
log, a draw in Python for the next input, two optimizers stepped in turn, and losses read with
``.item()`` at every step. Padded source positions take part in the attention, and the shared
embedding is stepped by both optimizers.

It is the side-by-side opponent of the benchmarks and the oracle of the tests for equality. A later
change needs its reason in ``docs/results.md``.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

PAD, SOS, EOS = 0, 1, 2

# Shapes: B batch, S source length, T target length, H hidden, V vocabulary; sequences first.


class Encoder(nn.Module):
    """Bidirectional GRU; the outputs of both directions are summed."""

    def __init__(self, hidden_size: int, embedding: nn.Embedding, layers: int, dropout: float):
        super().__init__()
        self.hidden_size = hidden_size
        self.embedding = embedding
        self.gru = nn.GRU(
            hidden_size,
            hidden_size,
            layers,
            dropout=dropout if layers > 1 else 0.0,
            bidirectional=True,
        )

    def forward(self, source: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Reads a batch (S, B), longest first; returns outputs (S, B, H) and states (2L, B, H)."""
        packed = pack_padded_sequence(self.embedding(source), lengths)
        outputs, hidden = self.gru(packed)
        outputs, _ = pad_packed_sequence(outputs)
        return outputs[:, :, : self.hidden_size] + outputs[:, :, self.hidden_size :], hidden


class DotAttention(nn.Module):
    """Weights over all source positions, padding included."""

    def forward(self, hidden: Tensor, encoder_outputs: Tensor) -> Tensor:
        """Of a state (1, B, H) over outputs (S, B, H); returns weights (B, 1, S)."""
        energies = torch.sum(hidden * encoder_outputs, dim=2).t()  # (B, S)
        return torch.softmax(energies, dim=1).unsqueeze(1)


class Decoder(nn.Module):
    """One word at a time: GRU, attention, and a softmax over the vocabulary."""

    def __init__(
        self,
        hidden_size: int,
        embedding: nn.Embedding,
        vocabulary_size: int,
        layers: int,
        dropout: float,
    ):
        super().__init__()
        self.layers = layers
        self.embedding = embedding
        self.embedding_dropout = nn.Dropout(dropout)
        self.gru = nn.GRU(hidden_size, hidden_size, layers, dropout=dropout if layers > 1 else 0.0)
        self.attention = DotAttention()
        self.concat = nn.Linear(2 * hidden_size, hidden_size)
        self.out = nn.Linear(hidden_size, vocabulary_size)

    def forward(
        self, word: Tensor, hidden: Tensor, encoder_outputs: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Of the previous words (1, B); returns probabilities (B, V) and the states (L, B, H)."""
        embedded = self.embedding_dropout(self.embedding(word))
        output, hidden = self.gru(embedded, hidden)
        weights = self.attention(output, encoder_outputs)
        context = weights.bmm(encoder_outputs.transpose(0, 1))  # (B, 1, S) @ (B, S, H)
        joined = torch.cat((output.squeeze(0), context.squeeze(1)), 1)
        return torch.softmax(self.out(torch.tanh(self.concat(joined))), dim=1), hidden


@dataclass
class Batch:
    """A batch as the tutorial builds it: (S, B) and (T, B), padded, and a mask of the target."""

    source: Tensor
    lengths: Tensor
    target: Tensor
    mask: Tensor


def build_batch(pairs: Sequence[tuple[list[int], list[int]]]) -> Batch:
    """Builds a batch in Python from pairs of word ids, each ending with EOS; longest first."""
    pairs = sorted(pairs, key=lambda pair: len(pair[0]), reverse=True)
    sources, targets = [source for source, _ in pairs], [target for _, target in pairs]
    padded_sources = list(itertools.zip_longest(*sources, fillvalue=PAD))
    padded_targets = list(itertools.zip_longest(*targets, fillvalue=PAD))
    mask = [[token != PAD for token in row] for row in padded_targets]
    return Batch(
        source=torch.LongTensor(padded_sources),
        lengths=torch.tensor([len(source) for source in sources]),
        target=torch.LongTensor(padded_targets),
        mask=torch.BoolTensor(mask),
    )


def masked_loss(probabilities: Tensor, target: Tensor, mask: Tensor) -> tuple[Tensor, int]:
    """Mean negative log-likelihood over the rows that are still going, and their number."""
    likelihoods = torch.gather(probabilities, 1, target.view(-1, 1)).squeeze(1)
    return -torch.log(likelihoods).masked_select(mask).mean(), int(mask.sum().item())


class Baseline:
    """Model, optimizers and the training iteration of the tutorial.

    Args:
        vocabulary_size: V, special tokens included.
        hidden_size: H.
        layers: Of encoder and decoder each.
        dropout: Probability.
        learning_rate: Of the encoder.
        decoder_learning_ratio: The decoder's learning rate over the encoder's.
        clip: Largest gradient norm of encoder and decoder each.
        teacher_forcing_ratio: Probability that a batch is decoded from the true previous words.
        optimizer: ``adam`` or ``sgd``.
        device: Where the model lives.
        seed: Of the draws of teacher forcing.
    """

    def __init__(
        self,
        vocabulary_size: int,
        *,
        hidden_size: int = 500,
        layers: int = 2,
        dropout: float = 0.1,
        learning_rate: float = 1e-4,
        decoder_learning_ratio: float = 5.0,
        clip: float = 50.0,
        teacher_forcing_ratio: float = 1.0,
        optimizer: str = "adam",
        device: str = "cpu",
        seed: int = 0,
    ):
        embedding = nn.Embedding(vocabulary_size, hidden_size)
        self.encoder = Encoder(hidden_size, embedding, layers, dropout).to(device)
        self.decoder = Decoder(hidden_size, embedding, vocabulary_size, layers, dropout).to(device)
        self.device = device
        self.clip = clip
        self.teacher_forcing_ratio = teacher_forcing_ratio
        self.random = random.Random(seed)
        rule = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}[optimizer]
        self.encoder_optimizer = rule(self.encoder.parameters(), lr=learning_rate)
        self.decoder_optimizer = rule(
            self.decoder.parameters(), lr=learning_rate * decoder_learning_ratio
        )

    def train(self, batch: Batch) -> float:
        """One iteration; returns the mean loss of the batch in nats a token."""
        self.encoder.train()
        self.decoder.train()
        self.encoder_optimizer.zero_grad()
        self.decoder_optimizer.zero_grad()
        loss, printed, tokens = self.loss(batch)
        loss.backward()
        nn.utils.clip_grad_norm_(self.encoder.parameters(), self.clip)
        nn.utils.clip_grad_norm_(self.decoder.parameters(), self.clip)
        self.encoder_optimizer.step()
        self.decoder_optimizer.step()
        return printed / tokens

    def loss(self, batch: Batch) -> tuple[Tensor, float, int]:
        """The loss to differentiate, the summed loss in nats, and the number of tokens."""
        source, target = batch.source.to(self.device), batch.target.to(self.device)
        mask = batch.mask.to(self.device)
        encoder_outputs, encoder_hidden = self.encoder(source, batch.lengths)
        word = torch.LongTensor([[SOS] * source.shape[1]]).to(self.device)
        hidden = encoder_hidden[: self.decoder.layers]
        teacher_forcing = self.random.random() < self.teacher_forcing_ratio
        loss: Tensor = torch.zeros((), device=self.device)
        printed, tokens = 0.0, 0
        for t in range(target.shape[0]):
            probabilities, hidden = self.decoder(word, hidden, encoder_outputs)
            if teacher_forcing:
                word = target[t].view(1, -1)
            else:
                _, best = probabilities.topk(1)
                word = torch.LongTensor([[best[i][0] for i in range(source.shape[1])]])
                word = word.to(self.device)
            step, count = masked_loss(probabilities, target[t], mask[t])
            loss = loss + step
            printed += step.item() * count
            tokens += count
        return loss, printed, tokens

    @torch.no_grad()
    def greedy(self, source: Tensor, lengths: Tensor, steps: int) -> tuple[Tensor, Tensor]:
        """Decodes a fixed number of steps from sources (S, B), longest first, without early exit.

        Returns:
            Word ids (steps, B) and their probabilities (steps, B).
        """
        self.encoder.eval()
        self.decoder.eval()
        encoder_outputs, encoder_hidden = self.encoder(source, lengths)
        hidden = encoder_hidden[: self.decoder.layers]
        word = torch.ones(1, source.shape[1], device=self.device, dtype=torch.long) * SOS
        words = torch.zeros([0, source.shape[1]], device=self.device, dtype=torch.long)
        scores = torch.zeros([0, source.shape[1]], device=self.device)
        for _ in range(steps):
            probabilities, hidden = self.decoder(word, hidden, encoder_outputs)
            score, best = torch.max(probabilities, dim=1)
            words = torch.cat((words, best.unsqueeze(0)), dim=0)
            scores = torch.cat((scores, score.unsqueeze(0)), dim=0)
            word = best.unsqueeze(0)
        return words, scores
