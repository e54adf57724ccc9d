"""HTML put together from values: text is escaped unless it is `Html` already. No template, no state."""

from html import escape


class Html(str):
    """Markup that may go into a page as it stands."""

    __slots__ = ()


def tag(name: str, *children: str, **attributes: str) -> Html:
    """An element. A trailing `_` of an attribute's name is dropped (`class_`); plain text is escaped."""
    given = "".join(f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"' for key, value in attributes.items())
    return Html(f"<{name}{given}>{join(*children)}</{name}>")


def join(*children: str) -> Html:
    """Siblings."""
    return Html("".join(child if isinstance(child, Html) else escape(child, quote=False) for child in children))


def figure(svg: str, caption: str = "") -> Html:
    """A drawing in a box of its own that scrolls when the page is narrower than what can be read."""
    text = tag("figcaption", caption) if caption else Html("")
    return tag("figure", tag("div", Html(svg), class_="scroll"), text)


def table(heads: list[tuple[str, str]], rows: list[Html], caption: str = "") -> Html:
    """`heads`: (name, unit); rows are made by `row`."""
    cells = [tag("th", name, tag("span", unit, class_="unit"), scope="col") for name, unit in heads]
    text = (tag("caption", caption),) if caption else ()
    whole = tag("table", *text, tag("thead", tag("tr", *cells)), tag("tbody", *rows))
    return tag("div", whole, class_="scroll")


def row(name: str, cells: list[str], *, kind: str = "") -> Html:
    """One row, its name first. `kind`: CSS classes."""
    return tag("tr", tag("th", name, scope="row"), *(tag("td", cell) for cell in cells), class_=kind)
