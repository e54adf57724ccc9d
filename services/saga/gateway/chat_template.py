"""A model's chat template, rendered in a sandbox as SGLang renders it. Pure.

The template is the operator's, what it is given is the client's. Environment and functions are those that Hugging
Face's transformers promises to templates. Called by `tokenization.py`.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Literal, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

ContentForm = Literal["string", "parts"]
MEDIA_WORDS: Final = ("image", "audio", "video", "vision")
_OF_DICTS: Final = frozenset(dir(dict))
MESSAGE_NAMES: Final = ("message", "msg", "m")  # of a loop over messages


class BadTemplateError(ValueError):
    """This is no chat template."""


class RenderError(ValueError):
    """The template does not take this chat; it says why."""


class _Generation(Extension):
    """`{% generation %}` marks an assistant's words for training; to a prompt it adds nothing."""

    tags = {"generation"}  # noqa: RUF012 - jinja's

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Sandbox(ImmutableSandboxedEnvironment):
    """With a shorter way to a message's fields, which templates mostly ask for as attributes."""

    def getattr(self, obj: Any, attribute: str) -> Any:  # noqa: ANN401 - jinja's
        if type(obj) is dict and attribute not in _OF_DICTS:
            return obj[attribute] if attribute in obj else self.undefined(obj=obj, name=attribute)
        return super().getattr(obj, attribute)


def _refuse(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _to_json(
    value: object,
    ensure_ascii: bool = False,  # noqa: FBT001, FBT002 - templates give it by name or by place
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,  # noqa: FBT001, FBT002
) -> str:
    """Without jinja's own escaping of HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


class ChatTemplate:
    """One template, compiled."""

    def __init__(self, source: str, specials: Mapping[str, str], wall_s: Callable[[], float]) -> None:
        """`specials`: such as `bos_token`, by name; `wall_s`: the clock, for templates that tell the date.

        Raises BadTemplateError.
        """
        environment = _Sandbox(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"], autoescape=False
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _refuse
        environment.globals["strftime_now"] = lambda form: datetime.fromtimestamp(wall_s(), UTC).strftime(form)
        try:
            self._template = environment.from_string(source)
            self.content_form: ContentForm = _content_form(source, environment)
        except jinja2.TemplateSyntaxError as error:
            raise BadTemplateError(f"line {error.lineno}: {error.message}") from error
        self._specials = dict(specials)

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[object] | None,
        options: Mapping[str, object],
        *,
        add_generation_prompt: bool = True,
    ) -> str:
        """The prompt. Raises RenderError."""
        given = {
            **self._specials,
            **options,
            "messages": messages,
            "tools": tools,
            "documents": None,
            "add_generation_prompt": add_generation_prompt,
        }
        try:
            return self._template.render(given)
        except (jinja2.TemplateError, TypeError, ValueError, KeyError, AttributeError, RecursionError) as error:
            raise RenderError(str(error) or type(error).__name__) from error
        except (ArithmeticError, LookupError, MemoryError) as error:
            raise RenderError(type(error).__name__) from error


def _content_form(source: str, environment: jinja2.Environment) -> ContentForm:
    """Whether it walks through the parts of a message's content, or takes it for a string."""
    if any(word in source for word in MEDIA_WORDS):
        return "parts"
    for loop in environment.parse(source).find_all(nodes.For):
        if _is_content(loop.iter):
            return "parts"
    return "string"


def _is_content(node: nodes.Node) -> bool:
    while isinstance(node, nodes.Filter | nodes.Getitem) and isinstance(node.node, nodes.Node):
        if isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const):
            break
        node = node.node
    if isinstance(node, nodes.Getattr):
        name = node.attr
    elif isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const):
        name = node.arg.value
    else:
        return False
    return name == "content" and isinstance(node.node, nodes.Name) and node.node.name in MESSAGE_NAMES
