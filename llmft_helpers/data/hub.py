"""What a person can do about a model or data set that a hub does not give out."""

import errno
import re


def hub_advice(error: Exception, otherwise: str) -> str:
    """One line for the usual reasons, found along the chain of causes; `otherwise` for the rest."""
    reasons = []
    link: BaseException | None = error
    while link is not None:
        reasons.append(link)
        link = link.__cause__ or link.__context__
    text = " ".join(str(reason) for reason in reasons)
    if any(getattr(reason, "errno", None) == errno.ENOSPC for reason in reasons):
        return "the disk is full: free some space, or set HF_HOME to a folder on another disk"
    if re.search(r"\b429\b", text):
        return "the hub limits requests: set HF_TOKEN, or wait some minutes; what was downloaded is kept"
    if re.search(r"gated|\b40[13]\b", text):
        return "the repository is gated: accept its terms on its page and set HF_TOKEN, or use an ungated copy"
    return otherwise
