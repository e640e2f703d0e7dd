#!/usr/bin/env python3
"""A preprocessor of mdBook that makes links of the pages work in the book.

On GitHub all links of the pages work as they are. In the book a link that leaves docs/ (`../README.md`, `../../e2e/src`) has
to lead to the repository, and a link to a README.md to the index.html that mdBook makes of it. mdBook sends the context
and the book as JSON, and reads the book from the standard output
(https://rust-lang.github.io/mdBook/for_developers/preprocessors.html).
"""

import json
import posixpath
import re
import sys

REPOSITORY = "https://github.com/heraldlb/herald/blob/main/"
LINK = re.compile(r"\]\((?![a-z][a-z0-9+.-]*:)([^)#\s]+)(#[^)\s]*)?\)")


def rewritten(page, text):
    """Returns the text of a page, named by its path below docs, with its links as the book needs them."""

    def replace(match):
        path, anchor = match[1], match[2] or ""
        # Relative to docs: a path that leaves docs begins with `..`.
        target = posixpath.normpath(posixpath.join(posixpath.dirname(page), path))
        if target.startswith("../"):
            path = REPOSITORY + target.removeprefix("../")
        elif posixpath.basename(path) == "README.md":
            path = posixpath.join(posixpath.dirname(path), "index.md")
        return f"]({path}{anchor})"

    return LINK.sub(replace, text)


def rewrite_items(items):
    for item in items:
        chapter = item.get("Chapter") if isinstance(item, dict) else None
        if chapter is not None:
            if chapter.get("source_path"):
                chapter["content"] = rewritten(chapter["source_path"], chapter["content"])
            rewrite_items(chapter["sub_items"])


def main():
    if sys.argv[1:2] == ["supports"]:
        return
    _, book = json.load(sys.stdin)
    rewrite_items(book["items"])
    json.dump(book, sys.stdout)


if __name__ == "__main__":
    main()
