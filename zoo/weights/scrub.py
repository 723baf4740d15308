"""What nobody else may see, kept out of messages and of the logs of the Hub's client: tokens, passwords, signatures."""

import logging
import re

from huggingface_hub import get_token

HIDDEN = {
    r"\bhf_[A-Za-z0-9]{8,}|\bBearer \S+": "hf_***",
    r"\beyJ[\w-]{8,}(?:\.[\w-]+){1,2}": "eyJ***",  # a JSON web token, by which Xet knows its clients
    r"(?<=://)[^\s/@]+:[^\s/@]+(?=@)": "***",
    r"(?<=[\w/-])\?[^\s'\"<>)]*=[^\s'\"<>)]*": "?***",  # who has the query of a signed address needs nothing else
}
"""Pattern -> what is shown in its place."""
LOGGERS = ("huggingface_hub", "httpx", "httpx2")
"""Of the client and of the HTTP library of its two versions. They name the address of each request that failed."""


def scrub(text: str) -> str:
    """`text` on one line without anything that is or looks like a token, a password or a signature."""
    token = get_token()
    if token:
        text = text.replace(token, "hf_***")
    for pattern, shown in HIDDEN.items():
        text = re.sub(pattern, shown, text)
    return " ".join(text.split())


class Scrubber(logging.Handler):
    """Scrubs each record before the handlers behind it show it; writes nothing itself."""

    def emit(self, record: logging.LogRecord) -> None:
        record.msg, record.args = scrub(record.getMessage()), None


def scrub_logs() -> None:
    """Have what the client logs scrubbed, whoever listens; doing it twice does no harm."""
    for name in LOGGERS:
        handlers = logging.getLogger(name).handlers
        if not any(isinstance(handler, Scrubber) for handler in handlers):
            handlers.insert(0, Scrubber())
