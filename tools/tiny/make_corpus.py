#!/usr/bin/env python3
"""Writes a synthetic token corpus that needs both local modelling and long-range recall.

Every sequence of T tokens reads

    BOS  (! KEY V1 V2 .) x facts   filler ... (? KEY V1 V2 .) ... filler   (? KEY V1 V2 .) x rest   EOS

The facts are random per sequence, so an answer "V1 V2" can only be found by looking back at its
fact, and every answer lies more than MIN_DISTANCE tokens behind it.  The filler consists of
sentences of a fixed sparse Markov chain with Zipfian words; the first word of a sentence sets its
topic, and the topic selects the transition table, so that filler has structure beyond bigrams.
Keys, values and filler words are disjoint token sets.  Each fact is asked exactly once: a second
question could be answered from the first one nearby.

The output depends on the arguments only: all randomness comes from random.Random.random(), whose
stream Python guarantees for an integer seed, and probabilities use only +, * and /.
Sequence i depends on the seed, the length and i, not on the number of sequences.
"""

import argparse
import math
import random
from bisect import bisect_right

PAD, BOS, EOS, FACT, STOP, ASK = 0, 1, 2, 3, 4, 5
KEYS = range(16, 48)
VALUES = range(48, 80)
TOPICS = range(80, 84)
WORDS = range(84, 256)
VOCAB = 256
IGNORE = -100

WINDOW = 16                 # the sliding window that recall has to reach past
MIN_DISTANCE = 4 * WINDOW   # an answer is further than this from its fact
ENTRY = 5                   # tokens of a fact and of a question
MAX_FACTS = 6
SEQUENCE_STRIDE = 1 << 32   # seeds of different corpora never share a sequence


def pick(rng, count):
    """Uniform integer in [0, count); randrange() may change between Python versions."""
    return int(rng.random() * count)


def sample_distinct(rng, population, count):
    """count distinct elements of population, in random order."""
    pool = list(population)
    for i in range(count):
        j = i + pick(rng, len(pool) - i)
        pool[i], pool[j] = pool[j], pool[i]
    return pool[:count]


def cumulative(weights):
    """Running sums of the normalised weights; the last one is exactly 1."""
    total = sum(weights)
    sums, acc = [], 0.0
    for weight in weights:
        acc += weight / total
        sums.append(acc)
    sums[-1] = 1.0
    return sums


class Filler:
    """The language of the filler: topic word, words of the topic's Markov chain, full stop."""

    MIN_WORDS = 3
    STOP_CHANCE = 0.1
    BACKGROUND = 0.1                        # chance of a word drawn from the unigram law instead
    FLAT = (0.5, 0.25, 0.15, 0.1)           # successor weights of an ordinary word
    SHARP = (0.97, 0.01, 0.01, 0.01)        # ... and of a word inside a fixed phrase
    LANGUAGE_SEED = 20250101                # the language is the same for every corpus

    def __init__(self):
        rng = random.Random(self.LANGUAGE_SEED)
        self.unigram = [1.0 / (rank + 3) for rank in range(len(WORDS))]
        norm = sum(self.unigram)
        self.unigram = [weight / norm for weight in self.unigram]
        unigram_sums = cumulative(self.unigram)
        self.topic_sums = cumulative([1.0 / (i + 1) for i in range(len(TOPICS))])
        self.topic_costs = self.costs(self.topic_sums)
        # Openers share one row per topic: index len(WORDS) stands for "start of the sentence".
        states = range(len(WORDS) + 1)
        common = [self.draw_successors(rng, unigram_sums) for _ in states]
        self.sums = [[self.row(rng, unigram_sums, common[state], state) for state in states] for _ in TOPICS]
        self.word_costs = [[self.costs(sums) for sums in rows] for rows in self.sums]

    @staticmethod
    def costs(sums):
        """Negative log-probability of each outcome, in nats."""
        return [-math.log(b - a) for a, b in zip([0.0] + sums[:-1], sums)]

    @staticmethod
    def draw_successors(rng, unigram_sums):
        chosen = []
        while len(chosen) < 4:
            word = bisect_right(unigram_sums, rng.random())
            if word not in chosen:
                chosen.append(word)
        return chosen

    def row(self, rng, unigram_sums, common, state):
        """Transition law of one word: half of the words ignore the topic, the others depend on it."""
        successors = common if state % 2 == 0 else self.draw_successors(rng, unigram_sums)
        weights = self.SHARP if state % 3 == 0 else self.FLAT
        probabilities = [self.BACKGROUND * p for p in self.unigram]
        for successor, weight in zip(successors, weights):
            probabilities[successor] += (1.0 - self.BACKGROUND) * weight
        return cumulative(probabilities)

    def sentence(self, rng):
        """Tokens of one sentence and the negative log-probability of each."""
        draw = rng.random
        topic = bisect_right(self.topic_sums, draw())
        tokens, costs = [TOPICS[topic]], [self.topic_costs[topic]]
        rows, row_costs = self.sums[topic], self.word_costs[topic]
        stay, leave = -math.log(1.0 - self.STOP_CHANCE), -math.log(self.STOP_CHANCE)
        state, words = len(WORDS), 0
        while True:
            may_stop = words >= self.MIN_WORDS
            if may_stop and draw() < self.STOP_CHANCE:
                tokens.append(STOP)
                costs.append(leave)
                return tokens, costs
            word = bisect_right(rows[state], draw())
            tokens.append(WORDS[word])
            costs.append(row_costs[state][word] + (stay if may_stop else 0.0))
            state = word
            words += 1

    def text(self, rng, length):
        """Exactly length tokens of sentences; the last sentence may be cut."""
        tokens, costs = [], []
        while len(tokens) < length:
            more_tokens, more_costs = self.sentence(rng)
            tokens += more_tokens
            costs += more_costs
        return tokens[:length], costs[:length]


class Corpus:
    """Generates sequences; min_distance and facts may be lowered for a training curriculum."""

    def __init__(self, length, min_distance=MIN_DISTANCE, max_facts=MAX_FACTS):
        # BOS, the facts, the distance, the questions and EOS have to fit.
        self.max_facts = min(max_facts, (length - 2 - min_distance) // (2 * ENTRY))
        if self.max_facts < 1:
            raise ValueError(f"length must be at least {2 + min_distance + 2 * ENTRY}, got {length}")
        self.length = length
        self.min_distance = min_distance
        self.filler = Filler()

    def sequence(self, seed, index):
        """Tokens, positions of the first answer tokens, and each filler token's cost in nats (else None)."""
        rng = random.Random(seed * SEQUENCE_STRIDE + index)
        fewest = max(1, self.max_facts - 2)
        facts = fewest + pick(rng, self.max_facts - fewest + 1)
        keys = sample_distinct(rng, KEYS, facts)
        values = sample_distinct(rng, VALUES, 2 * facts)
        tokens, costs = [BOS], [None]
        for i, key in enumerate(keys):
            tokens += [FACT, key, values[2 * i], values[2 * i + 1], STOP]
        costs += [None] * (ENTRY * facts)

        # The filler is cut into pieces, each followed by the question at the same index.
        order = sample_distinct(rng, range(facts), facts)
        answers = []
        for gap, fact in zip(self.gaps(rng, facts), order):
            more_tokens, more_costs = self.filler.text(rng, gap)
            tokens += more_tokens
            costs += more_costs
            answers.append(len(tokens) + 2)
            tokens += [ASK, keys[fact], values[2 * fact], values[2 * fact + 1], STOP]
            costs += [None] * ENTRY
        tokens.append(EOS)
        costs.append(None)
        return tokens, answers, costs

    def gaps(self, rng, facts):
        """Filler tokens before each question: up to two questions come early, the rest at the end."""
        total = self.length - 2 - 2 * ENTRY * facts
        slack = total - self.min_distance
        early = min(pick(rng, 3), facts - 1)
        cuts = sorted(self.min_distance + pick(rng, slack + 1) for _ in range(early)) + [total]
        gaps = [cuts[0]] + [b - a for a, b in zip(cuts, cuts[1:])]
        return gaps + [0] * (facts - len(gaps))

    def distances(self, tokens, answers):
        """How far behind each answer token the same token of its fact stands; 0 at all other tokens."""
        distances = [0] * len(tokens)
        for first in answers:
            fact = tokens.index(tokens[first - 1]) + 1  # a key stands first in its fact
            distances[first:first + 2] = [first - fact] * 2
        return distances

    def labels(self, tokens, answers, style):
        """Hugging Face labels: the token itself where it counts, IGNORE elsewhere."""
        if style == "all":
            return [IGNORE] + tokens[1:]
        labels = [IGNORE] * len(tokens)
        for first in answers:
            labels[first:first + 2] = tokens[first:first + 2]
        return labels


def check_sequence(corpus, tokens, answers):
    """Checks from the tokens alone what the corpus promises; returns the smallest recall distance."""
    assert len(tokens) == corpus.length and tokens[0] == BOS and tokens[-1] == EOS
    facts = {}
    position = 1
    while tokens[position] == FACT:
        facts[tokens[position + 1]] = position + 2
        position += ENTRY
    asked = [i for i in range(position, len(tokens)) if tokens[i] == ASK]
    assert [i + 2 for i in asked] == answers
    assert sorted(tokens[i + 1] for i in asked) == sorted(facts), "each fact is asked exactly once"
    distances = []
    for i in asked:
        fact = facts[tokens[i + 1]]
        assert tokens[i + 2:i + 4] == tokens[fact:fact + 2], "the answer repeats the fact"
        distances.append(i + 2 - fact)
    assert min(distances) > corpus.min_distance
    entries = {i + offset for i in asked for offset in range(ENTRY)}
    assert all(tokens[i] not in KEYS and tokens[i] not in VALUES
               for i in range(position, len(tokens)) if i not in entries), "filler is free of keys and values"
    return min(distances)


def entropy(counts):
    total = sum(counts)
    return -sum(c / total * math.log(c / total) for c in counts if c)


def report(corpus, sequences):
    """Prints the statistics behind --check."""
    nearest, questions, nats, counts = corpus.length, 0, [], [0] * VOCAB
    for tokens, answers, costs in sequences:
        nearest = min(nearest, check_sequence(corpus, tokens, answers))
        questions += len(answers)
        for token, cost in zip(tokens, costs):
            if cost is not None:
                nats.append(cost)
                counts[token] += 1
    filler = sum(nats) / len(nats)
    print(f"sequences {len(sequences)} x {corpus.length}, {questions} questions, "
          f"nearest answer {nearest} tokens ({nearest / WINDOW:.1f} windows of {WINDOW}) after its fact")
    print(f"filler: {filler:.4f} nats/token (perplexity {math.exp(filler):.3f}), "
          f"unigram {entropy(counts):.4f}, uniform {math.log(len(WORDS)):.4f}")


def write_hdf5(path, tokens, labels, distances):
    import h5py  # kept here so that the generator itself needs only the standard library
    import numpy as np
    with h5py.File(path, "w") as out:
        out.create_dataset("tokens", data=np.array(tokens, dtype=np.int32))
        out.create_dataset("labels", data=np.array(labels, dtype=np.int32))
        out.create_dataset("distances", data=np.array(distances, dtype=np.int32))


def parse_arguments():
    parser = argparse.ArgumentParser(description="Write a synthetic recall corpus as HDF5 (/tokens, /labels: int32).")
    parser.add_argument("--sequences", type=int, required=True, metavar="N", help="number of sequences")
    parser.add_argument("--length", type=int, default=256, metavar="T", help="tokens per sequence (default 256)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="corpus seed (default 0)")
    parser.add_argument("--labels", choices=("all", "answers"), default="all",
                        help="label every token but the first, or only the answers of the questions (default all)")
    parser.add_argument("--min-distance", type=int, default=MIN_DISTANCE, metavar="D",
                        help=f"every answer is further than this from its fact (default {MIN_DISTANCE})")
    parser.add_argument("--out", metavar="FILE.h5", help="output file")
    parser.add_argument("--check", action="store_true", help="verify every sequence and print corpus statistics")
    arguments = parser.parse_args()
    if arguments.sequences < 1 or arguments.seed < 0 or arguments.min_distance < 0:
        parser.error("--sequences must be positive, --seed and --min-distance must not be negative")
    if not arguments.out and not arguments.check:
        parser.error("give --out, --check or both")
    return parser, arguments


def main():
    parser, arguments = parse_arguments()
    try:
        corpus = Corpus(arguments.length, arguments.min_distance)
    except ValueError as error:
        parser.error(str(error))
    sequences = [corpus.sequence(arguments.seed, i) for i in range(arguments.sequences)]
    if arguments.check:
        report(corpus, sequences)
    if arguments.out:
        labels = [corpus.labels(tokens, answers, arguments.labels) for tokens, answers, _ in sequences]
        distances = [corpus.distances(tokens, answers) for tokens, answers, _ in sequences]
        write_hdf5(arguments.out, [tokens for tokens, _, _ in sequences], labels, distances)


if __name__ == "__main__":
    main()
