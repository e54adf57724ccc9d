"""Which tool a request of the Messages or Responses API forces its answer to call, as a function of a chat. Pure shape.

As in a chat, nothing is called unless the request says that something must be.
"""

from saga.engine.http_bodies import Function, MessagesBody, ResponseChoice, ResponsesBody
from saga.engine.http_errors import BadRequestError


def function_of_messages(body: MessagesBody) -> Function | None:
    """Of `tool_choice` any or tool. Raises BadRequestError when there is no such tool."""
    choice = body.tool_choice
    if choice is None or choice.type in ("auto", "none"):
        return None
    tools = [tool for tool in body.tools or () if tool.input_schema is not None]
    for tool in tools:
        if choice.type == "any" or tool.name == choice.name:
            return Function(tool.name, tool.input_schema)
    if choice.type == "any":
        raise BadRequestError("tool_choice asks for a tool, but tools has none with an input_schema", param="tools")
    raise BadRequestError(f"tool_choice names {choice.name!r}, which is not in tools", param="tool_choice")


def function_of_responses(body: ResponsesBody) -> Function | None:
    """Of `tool_choice` required or a named function. Raises BadRequestError when there is no such tool."""
    choice = body.tool_choice
    if choice is None or choice in ("auto", "none"):
        return None
    if isinstance(choice, ResponseChoice) and choice.type != "function":
        return None
    if choice != "required" and not isinstance(choice, ResponseChoice):
        raise BadRequestError("tool_choice must be auto, none, required or a named function", param="tool_choice")
    for tool in body.tools or ():
        wanted = tool.name if choice == "required" or not isinstance(choice, ResponseChoice) else choice.name
        if tool.type == "function" and tool.name and tool.name == wanted:
            return Function(tool.name, tool.parameters)
    if choice == "required":
        raise BadRequestError("tool_choice asks for a tool, but tools has no function", param="tools")
    raise BadRequestError("tool_choice names a tool that is not in tools", param="tool_choice")
