"""Reference pages and editor schemas of documents, made from their models."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import TypeAdapter

from labctl.document.teller import expected, opened


def json_schema(model: type[Any] | TypeAdapter[Any]) -> dict[str, Any]:
    """Describe a document for an editor.

    Parameters
    ----------
    model
        The model of the document.

    Returns
    -------
    schema
        JSON schema, draft 2020-12.
    """
    adapter = model if isinstance(model, TypeAdapter) else TypeAdapter(model)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **adapter.json_schema(),
    }


def schema_text(model: type[Any] | TypeAdapter[Any]) -> str:
    """Write :func:`json_schema` as it stands in its file."""
    return json.dumps(json_schema(model), indent=2, ensure_ascii=False) + "\n"


def reference_page(
    title: str,
    introduction: str,
    models: Mapping[str, type[Any] | TypeAdapter[Any]],
) -> str:
    """Write a page with a table for every section of a document.

    Parameters
    ----------
    title
        Heading of the page.
    introduction
        What stands above the tables.
    models
        Model of each kind of file, by its heading.

    Returns
    -------
    page
        Markdown.
    """
    lines = [f"# {title}", "", introduction.strip(), ""]
    seen: set[str] = set()
    for heading, model in models.items():
        schema = json_schema(model)
        lines += [f"## {heading}", ""]
        for name, body in _sections(schema, schema):
            if name not in seen:
                seen.add(name)
                lines += _table(name, body, schema)
    return "\n".join(lines).rstrip() + "\n"


def _sections(
    here: dict[str, Any], schema: dict[str, Any]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Give each section of a document, those inside after those around."""
    body = opened(here, schema)
    if "properties" in body:
        yield body.get("title", ""), body
    inner = [
        *body.get("properties", {}).values(),
        *(
            {"$ref": at}
            for at in body.get("discriminator", {}).get("mapping", {}).values()
        ),
        *([body["items"]] if isinstance(body.get("items"), dict) else []),
    ]
    for one in inner:
        yield from _sections(one, schema)


def _table(name: str, body: dict[str, Any], schema: dict[str, Any]) -> list[str]:
    lines = [f"### {name}", "", _markdown(body.get("description", "")), ""]
    if not body["properties"]:
        return lines
    lines += ["| key | takes | default | meaning |", "|---|---|---|---|"]
    required = body.get("required", ())
    for key, value in body["properties"].items():
        default = "needed" if key in required else _default(value)
        cells = (
            f"`{key}`",
            _takes(value, schema),
            default,
            value.get("description", ""),
        )
        row = " | ".join(cell.replace("|", "\\|") for cell in cells)
        lines.append(f"| {_markdown(row)} |")
    return [*lines, ""]


def _markdown(text: str) -> str:
    return text.replace("``", "`")


def _takes(value: dict[str, Any], schema: dict[str, Any]) -> str:
    body = opened(value, schema)
    if "properties" in body:
        return f"a section, {body['title']}"
    items = opened(body.get("items", {}), schema) if "items" in body else {}
    if "discriminator" in items or "properties" in items:
        named = items.get("title") or " or ".join(
            opened({"$ref": at}, schema)["title"]
            for at in items["discriminator"]["mapping"].values()
        )
        return f"a list, each {named}"
    return expected(value, schema)


def _default(value: dict[str, Any]) -> str:
    if "default" not in value:
        return "empty"  # made by a factory
    default = value["default"]
    if default is None:
        return "none"
    if isinstance(default, dict):
        return "its defaults"
    return f"`{json.dumps(default, ensure_ascii=False)}`"
