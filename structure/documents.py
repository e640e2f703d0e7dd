#!/usr/bin/env python3
"""Checks the documentation: `make links`.

`documents.py source` checks the pages of this checkout: each relative link and its anchor, each page that a comment of
the code cites, each chapter of docs/SUMMARY.md, and the mark of each block of commands. `documents.py book DIRECTORY`
checks each link of the HTML that mdBook has written. Both print what is wrong and fail if anything is.
"""

import html.parser
import pathlib
import re
import subprocess
import sys
import urllib.parse

ROOT = pathlib.Path(__file__).resolve().parent.parent

FENCE = re.compile(r"^( *)(`{3,}|~{3,})(.*)$")
LINK = re.compile(r"\]\(([^)\s]+)(?:\s+\"[^\"]*\")?\)|^ {0,3}\[[^\]]+\]:\s+(\S+)")
# A page that a comment, a log line or another page names: docs/protocol/failure.md#death.
CITATION = re.compile(r"\bdocs/[A-Za-z0-9_/-]+\.md(?:#[A-Za-z0-9_-]+)?")
# The changelog names pages of earlier versions; docs/protocol/README.md explains how a citation is written.
HISTORY = "CHANGELOG.md"
EXAMPLE = "docs/protocol/page.md#anchor"

NOT_RUN = "<!-- not run by a test -->"
RUN_BY = re.compile(r"<!-- run by the scenarios? ([a-z0-9, -]+) -->")
# Pages whose blocks of commands have no marks yet. A new page is never added.
UNMARKED = {"install.md", "networks.md", "observe.md"}


def lines_of(text):
    """Yields (number, line, the word behind the fence or None, whether the line opens a block) of a page."""
    fence = None
    for number, line in enumerate(text.splitlines(), 1):
        match = FENCE.match(line)
        if match and fence is None:
            fence = (match[2], match[3].strip())
            yield number, line, fence[1], True
        elif match and match[2].startswith(fence[0]) and not match[3].strip():
            yield number, line, fence[1], False
            fence = None
        else:
            yield number, line, fence and fence[1], False


def anchors_of(text):
    """Returns the anchors of a page: those of its headings, as GitHub and mdBook make them, and the explicit ones."""
    anchors = set(re.findall(r"<a id=\"([^\"]+)\"", text))
    seen = {}
    for _, line, block, _ in lines_of(text):
        match = re.match(r"#{1,6}\s+(.*?)\s*#*\s*$", line) if block is None else None
        if match:
            heading = re.sub(r"<[^>]*>", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", match[1]))
            slug = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
            count = seen.get(slug, 0)
            seen[slug] = count + 1
            anchors.add(slug if count == 0 else f"{slug}-{count}")
    return anchors


def links_of(text):
    """Yields (line number, target) of each link outside blocks and spans of code."""
    for number, line, block, _ in lines_of(text):
        if block is None:
            for match in LINK.finditer(re.sub(r"`[^`]*`", "", line)):
                yield number, match[1] or match[2]


def tracked():
    """Returns the paths of the checkout's files, those not committed yet among them."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, check=True, capture_output=True
    )
    paths = (ROOT / name for name in listed.stdout.decode().split("\0") if name)
    return [path for path in paths if path.is_file()]


def text_of(path):
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return ""


class Pages:
    """The Markdown pages of the checkout, with their anchors."""

    def __init__(self, paths):
        self.texts = {path: text_of(path) for path in paths if path.suffix == ".md"}
        self.anchors = {path: anchors_of(text) for path, text in self.texts.items()}

    def fault(self, target, anchor):
        """Returns what is wrong with a link to a file and an anchor, or None."""
        if not target.exists():
            return "does not exist"
        if anchor and target in self.anchors and anchor not in self.anchors[target]:
            return f"has no anchor #{anchor}"
        return None


def check_links(pages):
    for page, text in pages.texts.items():
        for number, link in links_of(text):
            if re.match(r"[a-z][a-z0-9+.-]*:", link):
                continue
            path, _, anchor = link.partition("#")
            target = (page.parent / urllib.parse.unquote(path)).resolve() if path else page
            fault = pages.fault(target, anchor)
            if fault:
                yield f"{page.relative_to(ROOT)}:{number}: the link {link}: the target {fault}"


def check_citations(pages, paths):
    for path in paths:
        if path == ROOT / HISTORY:
            continue
        for number, line in enumerate(text_of(path).splitlines(), 1):
            # A link's text may name another page than the one it leads to; links are checked for themselves.
            for citation in CITATION.findall(re.sub(r"https?://\S+", "", line)):
                name, _, anchor = citation.partition("#")
                fault = pages.fault(ROOT / name, anchor)
                if fault and citation != EXAMPLE:
                    yield f"{path.relative_to(ROOT)}:{number}: {citation}: the page {fault}"


def check_chapters(pages):
    summary = ROOT / "docs/SUMMARY.md"
    chapters = {(summary.parent / link).resolve() for _, link in links_of(pages.texts[summary])}
    for page in pages.texts:
        if page.is_relative_to(ROOT / "docs") and page != summary and page not in chapters:
            yield f"docs/SUMMARY.md: {page.relative_to(ROOT)} is not a chapter"


def mark_faults(name, text, catalogue):
    """Yields what is wrong with the marks of a page, given the text of the catalogue of scenarios."""
    before = ""
    for number, line, block, opens in lines_of(text):
        if opens and block in ("", "console", "sh"):
            match = RUN_BY.fullmatch(before)
            if not match and before != NOT_RUN:
                yield f"{name}:{number}: a block of commands without a mark: which scenario runs it, or {NOT_RUN}"
            for scenario in match[1].split(", ") if match else []:
                if f'"{scenario}"' not in catalogue:
                    yield f"{name}:{number}: there is no scenario {scenario}"
        if line.strip():
            before = line.strip()


def check_marks(pages):
    catalogue = (ROOT / "e2e/src/scenario/catalogue.rs").read_text()
    for page, text in pages.texts.items():
        if page.parent == ROOT / "docs" and page.name not in UNMARKED:
            yield from mark_faults(f"docs/{page.name}", text, catalogue)


class Html(html.parser.HTMLParser):
    """The links and the anchors of a page of HTML."""

    def __init__(self, text):
        super().__init__()
        self.links = []
        self.anchors = set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name in ("href", "src") and value and tag != "base":
                self.links.append(value)
            elif name == "id" or (tag == "a" and name == "name"):
                self.anchors.add(value)


def check_book(directory):
    # print.html and toc.html repeat the chapters below other addresses; 404.html is for addresses unknown in advance.
    skipped = {"print.html", "toc.html", "404.html"}
    pages = {path.resolve(): Html(path.read_text()) for path in directory.rglob("*.html")}
    for path, page in pages.items():
        if path.name in skipped:
            continue
        for link in page.links:
            if re.match(r"[a-z][a-z0-9+.-]*:", link):
                continue
            name, _, anchor = link.partition("#")
            target = (path.parent / urllib.parse.unquote(name)).resolve() if name else path
            at = f"{path.relative_to(directory.resolve())}: the link {link}"
            if not target.exists():
                yield f"{at}: the target does not exist"
            elif anchor and target in pages and anchor not in pages[target].anchors:
                yield f"{at}: the target has no anchor #{anchor}"


def check_source():
    paths = tracked()
    pages = Pages(paths)
    yield from check_links(pages)
    yield from check_citations(pages, paths)
    yield from check_chapters(pages)
    yield from check_marks(pages)


def main(arguments):
    if arguments == ["source"]:
        faults = list(check_source())
    elif len(arguments) == 2 and arguments[0] == "book":
        faults = list(check_book(pathlib.Path(arguments[1])))
    else:
        sys.exit("usage: documents.py source | documents.py book DIRECTORY")
    print("\n".join(faults) or "every link leads to something")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main(sys.argv[1:])
