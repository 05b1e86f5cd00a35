"""How alike two greedy completions are, as shipped. Pure."""


def greedy_agreement(candidate: str, live: str) -> float:
    """Share of the longer answer's words that both begin with, 0 to 1: greedy decoding goes apart once, for good."""
    ours, theirs = candidate.split(), live.split()
    longest = max(len(ours), len(theirs))
    if longest == 0:
        return 1.0
    common = 0
    for mine, other in zip(ours, theirs, strict=False):
        if mine != other:
            break
        common += 1
    return common / longest
