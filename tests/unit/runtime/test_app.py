"""How a process lives and ends: exit codes, signals, dead tasks. Each test runs a small program."""

import os
import signal
import subprocess
import sys
import textwrap

import pytest

HEAD = """
import asyncio, sys
from saga.runtime.app import App, run
from saga.runtime.errors import StartError
"""


def start(program: str, **environ: str) -> "subprocess.Popen[str]":
    """Runs `async def serve(app)` of this text as a service."""
    source = f"{HEAD}{textwrap.dedent(program)}\nrun(serve, name='test')\n"
    return subprocess.Popen(
        [sys.executable, "-c", source],
        env=os.environ | environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def outcome(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    """Exit code, stdout, stderr, once it has ended."""
    out, errors = process.communicate(timeout=20)
    return process.returncode, out, errors


def test_serve_that_returns_ends_the_process_cleanly_with_its_tasks():
    code, out, errors = outcome(
        start("""
        async def forever():
            try:
                await asyncio.Event().wait()
            finally:
                print("cancelled")
        async def serve(app):
            app.spawn(forever(), name="forever")
            await asyncio.sleep(0)
        """)
    )

    assert (code, out, errors) == (0, "cancelled\n", "")


def test_a_start_error_is_one_line_and_exit_2():
    code, out, errors = outcome(
        start("""
        async def serve(app):
            raise StartError("SAGA_X='1': expected something else")
        """)
    )

    assert (code, out, errors) == (2, "", "saga test: SAGA_X='1': expected something else\n")


def test_a_bad_shared_setting_is_a_start_error_too():
    code, _out, errors = outcome(start("async def serve(app): pass", SAGA_LOG="xml"))

    assert code == 2
    assert errors.startswith("saga test: SAGA_LOG='xml'")
    assert errors.count("\n") == 1


@pytest.mark.parametrize("place", ["serve", "task", "handler"])
def test_whatever_dies_ends_the_process_with_1(place: str):
    code, out, errors = outcome(
        start(f"""
        from saga.contract.messages import LeaderHello
        from saga.runtime.bus_memory import MemoryBus
        from saga.runtime.memory_broker import MemoryBroker
        async def die(incoming=None):
            raise ValueError("this is why")
        async def serve(app):
            try:
                if {place!r} == "serve":
                    await die()
                if {place!r} == "task":
                    app.spawn(die(), name="dying")
                if {place!r} == "handler":
                    bus = MemoryBus(MemoryBroker())
                    app.attach(bus)
                    await bus.subscribe("a", die)
                    await bus.publish("a", LeaderHello(service="admission", fence=1))
                await app.stopping.wait()
            finally:
                print("cleaned up")
        """)
    )

    assert (code, out) == (1, "cleaned up\n")
    assert "process.died" in errors
    assert "this is why" in errors


SLOW_TO_STOP = """
async def serve(app):
    print("up", flush=True)
    try:
        await app.stopping.wait()
        print("stopping", flush=True)
        await asyncio.Event().wait()
    finally:
        print("cleaned up", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_and_the_second_forces(number: signal.Signals):
    process = start(SLOW_TO_STOP)
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    process.send_signal(number)
    assert process.stdout.readline() == "stopping\n"
    process.send_signal(number)

    assert outcome(process) == (143, "cleaned up\n", "")


def test_a_signal_lets_serve_finish():
    process = start("""
    async def serve(app):
        assert await app.stop_or(asyncio.sleep(0, "result")) == "result"
        print("up", flush=True)
        assert await app.stop_or(asyncio.Event().wait()) is None
        print("done", flush=True)
    """)
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    process.terminate()

    assert outcome(process) == (0, "done\n", "")


def test_a_supervised_process_stops_when_its_stdin_closes():
    process = start(
        """
    async def serve(app):
        print("up", flush=True)
        await app.stopping.wait()
        print("done", flush=True)
    """,
        SAGA_SUPERVISED="1",
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"

    assert outcome(process) == (0, "done\n", "")  # communicate() closes stdin


def test_no_nats_is_said_in_one_line_with_exit_2():
    code, out, errors = outcome(start("async def serve(app): await app.connect()", SAGA_NATS_URL="nats://127.0.0.1:1"))

    assert (code, out) == (2, "")
    assert errors.startswith("saga test: NATS is not reachable at nats://127.0.0.1:1: start it")
    assert errors.count("\n") == 1


def test_logs_are_json_lines_with_the_service():
    code, _out, errors = outcome(
        start("""
        from saga.runtime.log import get_logger
        log = get_logger(worker="w0")
        async def serve(app):
            log.info("step.done", tokens=7)
            log.debug("not.said")
        """)
    )

    assert code == 0
    assert errors.count("\n") == 1
    for part in ('"event":"step.done"', '"service":"test"', '"worker":"w0"', '"tokens":7', '"level":"info"'):
        assert part in errors
