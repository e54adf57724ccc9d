"""An engine's answer as bytes, cut anywhere: httptools (llhttp, the parser of Node and uvicorn) takes the framing off.

What is ours is only what that parser leaves to its user: a bound on bytes that bring no content, bodies that end with
their connection, and bytes after the end. Pure. Called by `http_connection.py`, with a new parser for each answer.
"""

from typing import Final

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

MAX_HEAD_BYTES: Final = 64 * 1024  # and of anything else between two pieces of content


class MalformedError(Exception):
    """This is no HTTP/1 answer."""


class AnswerParser:
    """The final answer to one request; interim ones (1xx) are passed over. The `on_` methods are httptools' callbacks.

    They gather and never raise: what a piece of content sets off happens outside the parser, in one go for each read.
    """

    __slots__ = ("_framed", "_parser", "_without_content_bytes", "done", "keep", "pieces", "status")

    def __init__(self) -> None:
        self._parser = HttpResponseParser(self)
        self._framed = False  # the head says where the body ends
        self._without_content_bytes = 0
        self.status = 0  # 0: the head is not complete
        self.pieces: list[bytes] = []  # of the body, for the caller to take
        self.done = False
        self.keep = False  # once done: the connection may serve again

    def feed(self, data: bytes) -> None:
        """More bytes. Raises MalformedError; then too `pieces` has what came before. Bytes after the end are no part
        of any answer: they only cost the connection its further use."""
        had = len(self.pieces)
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            self.keep = False
            if not self.done:
                raise MalformedError(f"no valid answer: {error}") from error
        if self.done or len(self.pieces) > had:
            self._without_content_bytes = 0
            return
        self._without_content_bytes += len(data)
        if self._without_content_bytes > MAX_HEAD_BYTES:
            raise MalformedError(f"no valid answer: {self._without_content_bytes} bytes without content")

    def close(self) -> bool:
        """The connection has ended. Returns whether the answer is whole."""
        if self.status and not self._framed:
            self.done = True
        return self.done

    def on_message_begin(self) -> None:
        """Of an interim answer, of the final one, or of one that nobody asked for."""
        self._framed = False
        if self.done:
            self.keep = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """The parser does not tell which framing it has found."""
        name = name.lower()
        if name == b"content-length" or (name == b"transfer-encoding" and b"chunked" in value.lower()):
            self._framed = True

    def on_headers_complete(self) -> None:
        """Of an interim answer or of the final one."""
        if not self.done and (status := self._parser.get_status_code()) >= 200:
            self.status = status

    def on_body(self, body: bytes) -> None:
        """Content, as much as there is of it."""
        if not self.done:
            self.pieces.append(body)

    def on_message_complete(self) -> None:
        """Of an interim answer or of the final one."""
        if self.status and not self.done:
            self.done = True
            self.keep = self._parser.should_keep_alive()
