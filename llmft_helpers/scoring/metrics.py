"""Perplexity, bits per byte, BLEU, chrF, TER, pass@k, and how sure each of them is.

Rules: perplexity is exp(sum of nats / number of scored tokens), never a mean of batch means; bits per
byte is nats / (ln 2 x UTF-8 bytes) over the same text for every model; BLEU and chrF are sacrebleu's.
"""

import math
from dataclasses import dataclass

import datasets
import evaluate
import numpy
import sacrebleu
import torch
from sacrebleu.significance import PairedTest

from ..cpu.shared_prefix import causal_lm, read_shared_prefix
from ..errors import UserError
from ..models.boundary import encode, split
from ..models.endings import start_of_text

BOOTSTRAP_SAMPLES = 1000
CHUNK_LOGITS = 2**22  # logits held at once: they should fit into a processor's cache
CHUNK_ROWS = 64  # but no fewer rows of them, however large the vocabulary: products of few rows are slow
BATCH_TOKENS = 2048  # read at once when scoring, padding included; on a CPU larger batches are slower


@dataclass(frozen=True)
class Nats:
    """Summed negative log-likelihood of scored text: `nats` over `tokens`, which spell `utf8_bytes`."""

    nats: float
    tokens: int
    utf8_bytes: int

    @property
    def perplexity(self) -> float:
        return math.exp(self.nats / self.tokens)

    @property
    def bits_per_byte(self) -> float:
        return self.nats / (math.log(2) * self.utf8_bytes)


def total(parts: list[Nats]) -> Nats:
    if not parts:
        raise UserError("nothing to score: no row has a completion")
    return Nats(sum(p.nats for p in parts), sum(p.tokens for p in parts), sum(p.utf8_bytes for p in parts))


def completion_nats(model, tokenizer, rows: list[dict[str, str]], batch_size: int = 16) -> list[Nats]:
    """Nats of each row's completion given its prompt, in the order of `rows` of `{"prompt", "completion"}`.

    Scores the completion's tokens and the end token, as in training; bytes are those of the scored text. The result
    does not depend on batch size or order. Vocabulary logits are formed for scored positions only, in chunks.
    """
    encoded = []
    for row in rows:
        whole, known = encode(tokenizer, row["prompt"], row["completion"])
        begin = [] if known else [start_of_text(tokenizer)]
        encoded.append(([*begin, *whole, tokenizer.eos_token_id], len(begin) + known))
    return [
        Nats(nats, len(tokens) - scored_from, len(split(tokenizer, row["prompt"], row["completion"])[1].encode()))
        for row, (tokens, scored_from), nats in zip(
            rows, encoded, _nats(model, tokenizer, encoded, batch_size), strict=True
        )
    ]


def text_nats(model, tokenizer, texts: list[str], window: int, batch_size: int = 16) -> list[Nats]:
    """Nats of each whole text, every token of it scored once, in the order of `texts`.

    A text is read after what the tokenizer begins texts with (or else `start_of_text`), in windows of at most `window`
    tokens: they start half a window apart and score what none has scored before, so that every token of a long
    text has at least half a window, and of a short one all there is, before it.
    """
    begin = tokenizer("").input_ids or [start_of_text(tokenizer)]
    tokens = [begin + tokenizer(text, add_special_tokens=False).input_ids for text in texts]
    windows = [_windows(one, len(begin), window) for one in tokens]
    nats = iter(_nats(model, tokenizer, [part for parts in windows for part in parts], batch_size))
    return [
        Nats(sum(next(nats) for _ in parts), len(one) - len(begin), len(text.encode()))
        for text, one, parts in zip(texts, tokens, windows, strict=True)
    ]


def _windows(tokens: list[int], scored_from: int, window: int) -> list[tuple[list[int], int]]:
    """(tokens of a window, the first of them that it scores); the last window ends with the text."""
    last = max(0, len(tokens) - window)
    parts, done = [], scored_from
    for start in [*range(0, last, window // 2), last]:
        parts.append((tokens[start : start + window], done - start))
        done = start + window
    return parts


def _nats(model, tokenizer, encoded: list[tuple[list[int], int]], batch_size: int) -> list[float]:
    """Summed nats of the scored tokens of every (tokens, scored from), longest first in batches of like length."""
    order = sorted(range(len(encoded)), key=lambda i: -len(encoded[i][0]))
    sums = [0.0] * len(encoded)
    was_training = model.training
    model.eval()
    while order:
        size = max(1, min(batch_size, BATCH_TOKENS // len(encoded[order[0]][0])))
        batch, order = order[:size], order[size:]
        nats = _batch_nats(model, [encoded[i] for i in batch], tokenizer.pad_token_id)
        for i, value in zip(batch, nats, strict=True):
            sums[i] = value
    model.train(was_training)
    return sums


@torch.inference_mode()
def _batch_nats(model, batch: list[tuple[list[int], int]], pad: int) -> list[float]:
    width = max(len(tokens) for tokens, _ in batch)
    device = model.device
    ids = torch.tensor([tokens + [pad] * (width - len(tokens)) for tokens, _ in batch], device=device)  # (B, T)
    mask = torch.tensor([[1] * len(t) + [0] * (width - len(t)) for t, _ in batch], device=device)  # (B, T)
    before_scored = min(scored_from for _, scored_from in batch) - 1
    known, cache = read_shared_prefix(model, [tokens for tokens, _ in batch], before_scored)
    plain = causal_lm(model)
    hidden = plain.model(
        input_ids=ids[:, known:], attention_mask=mask, past_key_values=cache, use_cache=cache is not None
    ).last_hidden_state  # (B, T - P, C)
    row, position = _scored_positions(batch, device)
    states, targets = hidden[row, position - 1 - known], ids[row, position]  # (N, C), (N,)
    nats = torch.zeros(len(batch), dtype=torch.float64, device=device)
    chunk = max(CHUNK_ROWS, CHUNK_LOGITS // plain.config.vocab_size)
    for part in range(0, len(targets), chunk):
        logits = plain.lm_head(states[part : part + chunk]).float()  # (n, V)
        loss = torch.nn.functional.cross_entropy(logits, targets[part : part + chunk], reduction="none")
        nats.index_add_(0, row[part : part + chunk], loss.double())
    return nats.tolist()


def _scored_positions(batch: list[tuple[list[int], int]], device) -> tuple[torch.Tensor, torch.Tensor]:
    pairs = [(i, t) for i, (tokens, prompt_length) in enumerate(batch) for t in range(prompt_length, len(tokens))]
    row, position = torch.tensor(pairs, device=device, dtype=torch.long).view(-1, 2).T
    return row, position


class _CorpusMetric(evaluate.Metric):
    """A sacrebleu corpus metric as an `evaluate.Metric`: no script is fetched, so it works offline."""

    scorer: type

    def __init__(self, **settings):
        self.settings = settings
        super().__init__()

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=f"{self.scorer.__name__} by sacrebleu",
            citation="Post 2018, A Call for Clarity in Reporting BLEU Scores, W18-6319",
            features=datasets.Features({"predictions": text, "references": text}),
        )

    def _compute(self, predictions: list[str], references: list[str]) -> dict:
        check_aligned(predictions, references)
        scorer = self.scorer(**self.settings)
        return {
            "score": scorer.corpus_score(predictions, [references]).score,
            "signature": str(scorer.get_signature()),
        }


class Bleu(_CorpusMetric):
    scorer = sacrebleu.BLEU


class ChrF(_CorpusMetric):
    scorer = sacrebleu.CHRF


class Ter(_CorpusMetric):
    scorer = sacrebleu.TER


def check_aligned(predictions: list[str], references: list[str]) -> None:
    """UserError for what makes sacrebleu silently score something else: other lengths, nested or missing texts."""
    for name, texts in (("predictions", predictions), ("references", references)):
        if not texts or not all(isinstance(text, str) for text in texts):
            raise UserError(f"{name} must be a non-empty list of strings, one a row (one reference each)")
    if len(predictions) != len(references):
        raise UserError(
            f"{len(predictions)} predictions but {len(references)} references: one each is needed, in the same order"
        )


def translation_scores(predictions: list[str], references: list[str]) -> dict:
    """BLEU with signature and 95% bootstrap interval (Koehn 2004), chrF, TER, length ratio in words."""
    bleu = Bleu().compute(predictions=predictions, references=references)
    chrf = ChrF().compute(predictions=predictions, references=references)
    ter = Ter().compute(predictions=predictions, references=references)
    interval = sacrebleu.BLEU().corpus_score(predictions, [references], n_bootstrap=BOOTSTRAP_SAMPLES)
    words = sum(len(text.split()) for text in predictions)
    return {
        "bleu": bleu["score"],
        "bleu_01": bleu["score"] / 100,
        "bleu_ci95": [max(0.0, interval._mean - interval._ci), interval._mean + interval._ci],
        "bleu_signature": bleu["signature"],
        "chrf": chrf["score"],
        "ter": ter["score"],
        "length_ratio": words / sum(len(text.split()) for text in references),
    }


def bleu_p_value(base: list[str], tuned: list[str], references: list[str], test: str = "bs") -> float:
    """p of the null hypothesis that both systems are equally good: paired bootstrap "bs" or randomisation "ar".

    1 for equal scores, where sacrebleu, which counts larger differences only, would report the smallest p there is.
    """
    check_aligned(tuned, references)
    check_aligned(base, references)
    paired = PairedTest(
        [("base", base), ("tuned", tuned)],
        {"BLEU": sacrebleu.BLEU()},
        [references],
        test_type=test,
        n_samples=BOOTSTRAP_SAMPLES,
    )
    _, scores = paired()
    before, after = scores["BLEU"]
    return 1.0 if before.score == after.score else after.p_value


def sentence_scores(predictions: list[str], references: list[str]) -> list[float]:
    """chrF of every sentence: unlike BLEU it is meaningful for a single one."""
    check_aligned(predictions, references)
    scorer = sacrebleu.CHRF()
    return [scorer.sentence_score(p, [r]).score for p, r in zip(predictions, references, strict=True)]


def bootstrap_ci95(values: list[float], seed: int = 0) -> list[float]:
    """Percentile interval of the mean, problems (or rows) resampled with replacement."""
    array = numpy.asarray(values, dtype=float)
    draws = numpy.random.default_rng(seed).integers(0, len(array), (BOOTSTRAP_SAMPLES, len(array)))
    return numpy.percentile(array[draws].mean(axis=1), [2.5, 97.5]).tolist()


def share_ci95(outcomes: list[bool]) -> list[float]:
    """Exact interval of a share (Clopper and Pearson 1934): resampling 0 of 40 would give no width at all."""
    from scipy.stats import binomtest

    interval = binomtest(sum(outcomes), len(outcomes)).proportion_ci()
    return [float(interval.low), float(interval.high)]


def pass_at_k(samples: int, passed: int, k: int) -> float:
    """Unbiased estimate 1 - C(n-c, k) / C(n, k) that one of k answers passes, of a problem with n answers of which c
    pass (Chen et al. 2021, arXiv 2107.03374). ValueError for more than there are."""
    if not 0 <= passed <= samples or not 1 <= k <= samples:
        raise ValueError(f"need 0 <= passed <= samples and 1 <= k <= samples, got {passed=} {samples=} {k=}")
    return 1.0 - math.comb(samples - passed, k) / math.comb(samples, k)


def pass_at_k_scores(passed: list[int], samples: int, k: int) -> tuple[float, list[float]]:
    """(pass@k, its 95% interval) over problems; `passed`: how many of a problem's `samples` answers pass.

    Problems are resampled; where each has 0 or 1, as with k = samples, it is a share's exact interval.
    """
    shares = [pass_at_k(samples, count, k) for count in passed]
    certain = set(shares) <= {0.0, 1.0}
    interval = share_ci95([share == 1 for share in shares]) if certain else bootstrap_ci95(shares)
    return sum(shares) / len(shares), interval


def mcnemar_p_value(first: list[bool], second: list[bool]) -> float:
    """Exact two-sided McNemar test of paired outcomes: only problems that one alone solved count."""
    from scipy.stats import binomtest

    only_first = sum(a and not b for a, b in zip(first, second, strict=True))
    only_second = sum(b and not a for a, b in zip(first, second, strict=True))
    changed = only_first + only_second
    return 1.0 if changed == 0 else float(binomtest(only_first, changed, 0.5).pvalue)
