"""LangGraph and the OpenAI Agents SDK, each with its one line, against the whole mesh."""

import asyncio

import pytest
from agents import Agent, ModelSettings, RunConfig, Runner
from agents import function_tool as tool_of_agents_sdk
from langchain_core.tools import tool as tool_of_langchain
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition

from saga.client import GatewayError, workflow

pytestmark = [pytest.mark.asyncio(loop_scope="package"), pytest.mark.timeout(150)]


async def shape_of(wf, steps: int) -> dict:
    """The workflow as it ran, once it has so many steps."""
    async with asyncio.timeout(15):
        while True:
            try:
                seen = await asyncio.to_thread(wf.show)
            except GatewayError:
                seen = {"steps": 0}
            if seen["steps"] >= steps:
                return seen
            await asyncio.sleep(0.05)


@tool_of_langchain
def read_file(path: str) -> str:
    """Reads a file."""
    return f"{path} is empty."


@tool_of_agents_sdk
def list_files(folder: str) -> str:
    """Lists a folder."""
    return f"{folder}: README.md"


def graph_of(wf, model):
    """Reads a file once, says what is in it, and has a sub-agent look at that."""
    llm = wf.langgraph(model, max_tokens=200)
    reviewer = wf.agent("reviewer").langgraph(model, max_tokens=8)
    forced = llm.bind_tools([read_file], tool_choice="required")

    async def think(state: MessagesState):
        first = state["messages"][-1].type == "human"
        return {"messages": [await (forced if first else llm).ainvoke(state["messages"])]}

    async def review(state: MessagesState):
        said = state["messages"][-1].content or "nothing"
        return {"messages": [await reviewer.ainvoke([("user", f"Is this true? {said}")])]}

    graph = StateGraph(MessagesState)
    graph.add_node("think", think)
    graph.add_node("review", review)
    graph.add_node("tools", ToolNode([read_file]))
    graph.add_edge(START, "think")
    graph.add_conditional_edges("think", tools_condition, {"tools": "tools", END: "review"})
    graph.add_edge("tools", "think")
    graph.add_edge("review", END)
    return graph.compile()


async def test_langgraph(mesh, model):
    async with workflow("langgraph-1", base_url=mesh.gateway_url) as wf:
        done = await graph_of(wf, model).ainvoke({"messages": [("user", "What is in README.md?")]})
        seen = await shape_of(wf, 3)

    kinds = [message.type for message in done["messages"]]
    assert kinds == ["human", "ai", "tool", "ai", "ai"]
    assert done["messages"][2].content.endswith("is empty.")
    nodes = seen["taken"]["nodes"]
    assert [(node["session"], node["tool"]) for node in nodes] == [
        ("langgraph-1", "read_file"),
        ("langgraph-1", ""),
        ("langgraph-1/reviewer", ""),
    ]
    assert [node.get("parent") for node in nodes] == [None, None, "langgraph-1"]


async def test_langgraph_streams(mesh, model):
    async with workflow("langgraph-2", base_url=mesh.gateway_url) as wf:
        llm = wf.langgraph(model, max_tokens=8)
        pieces = [piece.content async for piece in llm.astream([("user", "Say something.")])]
        whole = await asyncio.to_thread(llm.invoke, [("user", "Say something.")])

    assert "".join(pieces) == whole.content


QUIET = RunConfig(tracing_disabled=True)
FORCED = ModelSettings(tool_choice="required", max_tokens=200)


async def test_the_agents_sdk(mesh, model):
    async with workflow("agents-1", base_url=mesh.gateway_url) as wf:
        main = Agent(name="Coder", model=wf.agents_sdk(model), model_settings=FORCED, tools=[list_files])
        short = ModelSettings(max_tokens=8)
        reviewer = Agent(name="Reviewer", model=wf.agent("reviewer").agents_sdk(model), model_settings=short)
        done = await Runner.run(main, "What is there?", run_config=QUIET)
        reviewed = await Runner.run(reviewer, done.final_output, run_config=QUIET)
        seen = await shape_of(wf, 3)

    assert reviewed.final_output
    assert [item.type for item in done.new_items] == ["tool_call_item", "tool_call_output_item", "message_output_item"]
    assert [(node["session"], node["tool"]) for node in seen["taken"]["nodes"]] == [
        ("agents-1", "list_files"),
        ("agents-1", ""),
        ("agents-1/reviewer", ""),
    ]


async def test_the_agents_sdk_by_responses(mesh, model):
    async with workflow("agents-2", base_url=mesh.gateway_url) as wf:
        speaks = wf.agents_sdk(model, responses=True)
        main = Agent(
            name="Coder",
            model=speaks,
            model_settings=FORCED,
            tools=[list_files],
            tool_use_behavior="stop_on_first_tool",
        )
        done = await Runner.run(main, "What is there?", run_config=QUIET)
        seen = await shape_of(wf, 1)

    assert "README.md" in done.final_output
    assert [(node["session"], node["tool"]) for node in seen["taken"]["nodes"]] == [("agents-2", "list_files")]


async def test_the_agents_sdk_streams(mesh, model):
    async with workflow("agents-stream", base_url=mesh.gateway_url) as wf:
        agent = Agent(name="Coder", model=wf.agents_sdk(model), model_settings=ModelSettings(max_tokens=8))
        running = Runner.run_streamed(agent, "Say something.", run_config=QUIET)
        kinds = {event.type async for event in running.stream_events()}

    assert "raw_response_event" in kinds
    assert running.final_output
