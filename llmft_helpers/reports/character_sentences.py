"""What notebook 01 says about its numbers: a function for each thing said, from numbers to Markdown."""

import math

from .tables import markdown

EARLIER_STUDY = 2.5  # perplexity a character that an earlier study reported, on its own text


def alphabet(counts: dict) -> str:
    """`counts`: alphabet, rest_of_unicode, examples (of unknown characters), and of training and validation the
    characters and how many are unknown."""
    training, validation = counts["training"], counts["validation"]
    examples = ", ".join(map(repr, counts["examples"])) or "none"
    return (
        f"The alphabet has **{counts['alphabet']}** characters and `<unk>`. In training {training['unknown']:,} of "
        f"{training['characters']:,} characters are unknown, in validation **{validation['unknown']:,}** of "
        f"{validation['characters']:,} ({examples}). Nobody gets them for free: an unknown character costs what the "
        f"model pays for `<unk>` plus ln({counts['rest_of_unicode']:,}) = {math.log(counts['rest_of_unicode']):.1f} "
        "nats, as if it were drawn evenly from the rest of Unicode."
    )


def parameters(shape: dict, table_rows: int, counts: dict) -> str:
    """`shape`: vocabulary, width, layers; `counts`: parameters, multiplied_parameters."""
    return (
        f"With V = {shape['vocabulary']} characters, C = {shape['width']} channels, L = {shape['layers']} blocks and a "
        f"table of R = {table_rows:,} rows: 2VC for embedding and head, RC for the table, and in each block 4C² for "
        f"attention and 8C² for the MLP, together $2VC + RC + 12LC^2$ = **{counts['parameters']:,}** parameters, as "
        f"counted. Only {counts['multiplied_parameters']:,} of them are multiplied with at every character; the rest "
        "is looked up."
    )


def training(trained: dict, characters: dict) -> str:
    """`trained`: step, seconds, best; `characters`: how many the text has, and how many were read in all."""
    seconds, read = trained["seconds"], characters["read"]
    return (
        f"{trained['step']:,} steps in {seconds:.0f} s read {read:,} characters ({read / seconds:,.0f} a second), the "
        f"text as read {read / characters['text']:.1f} times over. Best validation loss **{trained['best']:.3f}**."
    )


def perplexity(validation: dict, test: dict) -> str:
    """Scores of both splits, beside what an earlier study reported."""
    parts, study = validation["per_domain"], math.log2(EARLIER_STUDY)
    bits = "; ".join(
        f"{domain}: {part['bits_per_char']:.2f} bits against {study:.2f}" for domain, part in parts.items()
    )
    each = [part["perplexity"] for part in parts.values()]
    return (
        f"Perplexity **{validation['perplexity']:.2f}** a character, {validation['bits_per_char']:.2f} bits, on "
        f"{validation['characters']:,} unseen characters (test: {test['perplexity']:.2f}). An earlier study reported "
        f"{EARLIER_STUDY}, which is {study:.2f} bits, for other text; here, by domain, {bits}. A perplexity belongs "
        f"to its text: on these documents alone it ranges from {min(each):.2f} to {max(each):.2f}."
    )


def faults(by_domain: dict[str, dict]) -> str:
    """A line a domain of `scoring.sample_faults`."""
    return "\n".join(f"- {_domain_faults(domain, part)}" for domain, part in by_domain.items())


def _domain_faults(domain: str, part: dict) -> str:
    model, human = part["model"], part["human"]
    return (
        f"**{domain}** ({part['samples']} samples): {model['known_words']:.0%} of the words exist in the training text "
        f"(human documents: {human['known_words']:.0%}); longest run copied from it {model['longest_copy']} "
        f"characters, median {model['median_copy']} (human: {human['longest_copy']} and {human['median_copy']})"
        f"{_parsing(model, human)}; {part['ended']:.0%} come to an end by themselves."
    )


def _parsing(model: dict, human: dict) -> str:
    if "parses" not in model:
        return ""
    return (
        f"; of {model['texts']} different answers **{model['parses']:.0%}** parse, cut at 700 characters "
        f"(human, whole: {human['parses']:.0%})"
    )


def copied(by_domain: dict[str, dict]) -> str:
    most = max((part["model"]["copied"] for part in by_domain.values()), key=len)
    return f"The longest copied run: `{most!r}`."


def progress(metrics: dict) -> str:
    return (
        f"From {metrics['start_loss']:.2f} nats a character the model came to **{metrics['val_loss']:.2f}** in "
        f"{metrics['seconds']:.0f} s with {metrics['parameters']:,} parameters. The counts say how far it can spell "
        "and lay out a document; they say nothing about meaning. For that, read the samples next to what was wanted: "
        "notebooks 02 and 03 measure it."
    )


def ablation(measured: dict | None) -> str:
    """A table of what benchmarks/char_gpt_ablation.py wrote, and the variants that are not worse."""
    if measured is None:
        return "Not measured for this profile: see `benchmarks/char_gpt_ablation.py`."
    first, *others = measured["rows"]
    better = [f"{row['variant']} ({row['change']:+.1%})" for row in others if row["change"] <= 0]
    table = markdown([_ablation_line(row) for row in (first, *others)])
    return f"{table}\n\n{measured['setting']}. Not worse than the notebook's choice: {', '.join(better) or 'none'}."


def _ablation_line(row: dict) -> dict[str, str]:
    spread = row["spread"]
    return {
        "variant": row["variant"],
        "bits a character": f"{row['bits_per_char']:.3f}",
        "change": f"{row['change']:+.1%}",
        "between seeds": "" if spread is None else f"{spread:.3f}",
        "parameters": f"{row['parameters']:,}",
        "steps": f"{row['steps']:,}",
        "ms a step": f"{row['ms_per_step']:.1f}",
    }


def nanogpt(measured: dict | None) -> str:
    """A table of what benchmarks/char_gpt.py wrote, and a line a seed."""
    if measured is None:
        return "Not measured for this profile: see `benchmarks/char_gpt.py`."
    table = markdown([_run_line(row) for row in measured["results"]])
    return "\n".join([f"{table}\n", *(f"- {_against_nanogpt(row)}" for row in measured["comparisons"])])


PUBLISHED, LAPTOP = 1.4697, 1.88  # nats a character on tiny Shakespeare, by nanoGPT's README


def yardstick(measured: dict | None) -> str:
    """What benchmarks/char_gpt.py wrote of tiny Shakespeare, by nanoGPT's rule and ours, and what is published."""
    if measured is None:
        return "Not measured for this profile: see `benchmarks/char_gpt.py`."
    ours = [row for row in measured["results"] if row["name"] == "ours"]
    windows = [row["random_windows"]["val_loss"] for row in ours]
    reached = [row["seconds_to_published"] for row in ours if row["seconds_to_published"] is not None]
    when = f"after {_span(reached, '.0f')} s" if reached else "in no run"
    seldom = f" ({len(reached)} of {len(ours)} runs)" if 0 < len(reached) < len(ours) else ""
    return (
        f"Tiny Shakespeare, {measured['setting']}, {len(ours)} seeds: **{_span(windows, '.3f')}** nats a character by "
        f"nanoGPT's rule, {_span([row['val_loss'] for row in ours], '.3f')} by the rule above. Published by nanoGPT: "
        f"{PUBLISHED}, which is reached here {when}{seldom}, and {LAPTOP} by its recipe for a laptop."
    )


def _span(values: list[float], form: str) -> str:
    low, high = format(min(values), form), format(max(values), form)
    return low if low == high else f"{low} to {high}"


def _run_line(row: dict) -> dict[str, str]:
    return {
        "model": row["name"],
        "seed": str(row["seed"]),
        "parameters": f"{row['parameters']:,}",
        "seconds": f"{row['seconds']:.0f}",
        "steps": f"{row['steps']:,}",
        "bits a character": f"{row['bits_per_char']:.3f}",
        "perplexity": f"{row['perplexity']:.3f}",
        "test bits": f"{row['test']['bits_per_char']:.3f}",
    }


def _against_nanogpt(row: dict) -> str:
    share = row["time_ratio"]
    reached = "is never reached" if share is None else f"is reached in {share:.0%} of its time"
    return (
        f"seed {row['seed']}: {1 - row['bits_ratio']:.1%} fewer bits than {row['against']} "
        f"(test {1 - row['test_bits_ratio']:.1%}); its best loss {reached}"
    )
