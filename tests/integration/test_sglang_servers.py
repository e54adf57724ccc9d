"""The servers of `saga bench live --engine sglang`: started, asked, emptied, ended. With a program that acts as one."""

import os
import sys
import textwrap
from pathlib import Path

import pytest

from saga.cli.sglang import SglangSettings
from saga.contract.errors import StartError
from saga.load.sglang_servers import SglangServers

ACTS_LIKE_SGLANG = f"""\
#!{sys.executable}
import json, os, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

flags = dict(zip(sys.argv, sys.argv[1:]))
journal = Path(os.environ["FAKE_JOURNAL"])
journal.open("a").write(f"started {{os.getpid()}}\\n")
if "--die" in sys.argv:
    sys.exit("out of memory, for example")

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        info = {{"page_size": int(flags["--page-size"]), "max_total_num_tokens": 4096, "version": "0.5.23",
                "served_model_name": "m", "context_length": None}}
        said = {{"/health": {{}}, "/server_info": info, "/v1/models": {{"data": [{{"max_model_len": 2048}}]}}}}
        self.answer(json.dumps(said[self.path]).encode())

    def do_POST(self):
        journal.open("a").write(self.path + "\\n")
        self.answer(b"flushed")

    def answer(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass

HTTPServer(("127.0.0.1", int(flags["--port"])), Handler).serve_forever()
"""


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """Settings of servers that are that program, and what they did."""
    program = tmp_path / "python"
    program.write_text(textwrap.dedent(ACTS_LIKE_SGLANG))
    program.chmod(0o755)
    monkeypatch.setenv("FAKE_JOURNAL", str(tmp_path / "journal"))
    return SglangSettings(model="m", python=program, page_tokens=16), tmp_path / "journal"


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def kept(log: str) -> str:
    """The log that outlives its server; removed here."""
    said = Path(log).read_text()
    Path(log).unlink()
    return said


async def test_they_say_what_they_are_and_are_emptied_and_ended(fake):
    settings, journal = fake
    async with SglangServers(settings, 2) as servers:
        assert len(set(servers.urls)) == 2
        engines = await servers.engines(shrink=4)
        assert (engines.workers, engines.page_tokens, engines.speed, engines.shrink) == (2, 16, 1.0, 4)
        assert (engines.kv_tokens, engines.context_tokens) == (4 * 4_096, 4 * 2_048), "as long as before shrinking"
        assert "0.5.23" in engines.profile
        await servers.forget()
        lines = journal.read_text().splitlines()
        pids = [int(line.split()[1]) for line in lines if line.startswith("started")]
        assert len(pids) == 2
        assert sum(line.startswith("/flush_cache") for line in lines) == 2
        assert all(alive(pid) for pid in pids)
    assert not any(alive(pid) for pid in pids)


async def test_one_that_dies_at_once_ends_the_start_with_its_last_word(fake):
    settings, journal = fake
    dying = SglangSettings(model="m", python=settings.python, page_tokens=16, extra=("--die",))
    with pytest.raises(StartError, match=r"sglang-\d died: out of memory, for example \(log: ") as refusal:
        async with SglangServers(dying, 2):
            pass
    log = str(refusal.value).rsplit("(log: ", 1)[1].rstrip(")")
    assert "out of memory" in kept(log)
    assert journal.exists()
