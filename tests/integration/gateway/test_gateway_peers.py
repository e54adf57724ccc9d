"""Two gateways of one cell: a conversation that nobody named is one session, whichever of them its steps reach."""

QUESTION = {"role": "user", "content": "Read the file and fix the failing test in module seven."}
TOOLS = [{"type": "function", "function": {"name": "read"}}]


def body(*messages):
    return {"model": "tiny", "messages": list(messages), "tools": TOOLS, "max_tokens": 20}


async def said(mesh, *messages):
    answer = await (await mesh.ask(body(*messages), "chat")).json()
    return answer["choices"][0]["message"]


async def test_a_conversation_goes_on_at_the_other_gateway(start):
    one = await start()
    two = await start(beside=one)
    talk = [QUESTION]
    for turn, mesh in enumerate((one, two, one, two, two, one)):
        answer = await said(mesh, *talk)
        talk += [answer, {"role": "user", "content": f"Go on with part {turn}."}]
    assert len({step.session for step in one.leaders.steps}) == 1
    assert {step.gateway_id for step in one.leaders.steps} == {"g1", "g2"}


async def test_a_conversation_that_no_gateway_knows_waits_for_nobody_long(start):
    one = await start()
    two = await start(beside=one)
    await said(two, QUESTION, {"role": "assistant", "content": "I did something."}, QUESTION)
    await said(two, QUESTION, {"role": "assistant", "content": "I did something."}, QUESTION)
    assert len({step.session for step in one.leaders.steps}) == 1
    assert one.leaders.steps[0].waited_s < 1.0
