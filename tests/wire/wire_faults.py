"""What the scripted proxy does to requests, and what it has seen of them."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Answer:
    """What the proxy answers in place of the server.

    Attributes:
        status: Of HTTP.
        headers: Besides Content-Length.
        body: The body.
    """

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(eq=False)
class Fault:
    """What happens to one request, or to several, that fit. Positions count bytes of the body, from 0.

    Attributes:
        method: Method of HTTP; empty for any.
        path: Regular expression that must occur in the path, which is percent-encoded.
        query: The same for the query.
        body: Bytes that the request's body must have at least.
        nth: The fitting request that meets it, from 1.
        times: How many fitting requests from there on meet it; 0 for all, of which there must be one.
        answer: The server does not hear of the request; this is the answer.
        lost_answer: The server does what is asked for; the connection ends instead of its answer.
        cut_sent: The connections end when that many bytes of the request's body were passed on.
        cut_answered: The connection ends when that many bytes of the answer's body were passed on.
        flip_sent: A bit of that byte of the request's body is another.
        flip_answered: A bit of that byte of the answer's body is another.
        sent_shorter: The request's body ends so many bytes earlier, as its Content-Length says then.
        shorter: The answer's body ends so many bytes earlier, as its Content-Length says then.
        longer: The answer's body ends so many bytes later, as its Content-Length says then.
        first: Called before the request is passed on.
        surplus: So many bytes follow the answer, of which its Content-Length says nothing.
        hits: To how many requests it has happened.
        met: How many requests fitted.
    """

    method: str = ""
    path: str = ""
    query: str = ""
    body: int = 0
    nth: int = 1
    times: int = 1
    answer: Answer | None = None
    lost_answer: bool = False
    cut_sent: int | None = None
    cut_answered: int | None = None
    flip_sent: int | None = None
    flip_answered: int | None = None
    sent_shorter: int = 0
    shorter: int = 0
    longer: int = 0
    first: Callable[[], None] | None = None
    surplus: int = 0
    hits: int = field(default=0, init=False)
    met: int = field(default=0, init=False)

    @property
    def is_due(self) -> bool:
        """Whether it happens to the request that fitted last."""
        return self.met >= self.nth and (not self.times or self.met < self.nth + self.times)

    def fits(self, method: str, path: str, query: str, body: int) -> bool:
        return (
            body >= self.body
            and self.method in {"", method}
            and re.search(self.path, path) is not None
            and re.search(self.query, query) is not None
        )


HARMLESS = Fault()


@dataclass
class Seen:
    """A request.

    Attributes:
        method: Of HTTP.
        path: Percent-encoded.
        query: Percent-encoded.
        at_s: When its head had come, on the monotonic clock.
        sent: Bytes of its body that were passed on to the server.
        status: Of the answer that was passed on; 0 when there was none.
        fault: What happened to it.
    """

    method: str
    path: str
    query: str
    at_s: float
    sent: int = 0
    status: int = 0
    fault: Fault = HARMLESS
