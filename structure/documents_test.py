#!/usr/bin/env python3
"""Tests of documents.py and book.py: `make links` runs them first."""

import pathlib
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True  # no __pycache__ in the checkout

import book
import documents


class Pages(unittest.TestCase):
    def test_headings_and_explicit_anchors_are_anchors(self):
        page = '# A `b` [c](d.md), e?\n## F\n## F\n<a id="g"></a>\n```\n# no heading\n```\n'
        self.assertEqual(documents.anchors_of(page), {"a-b-c-e", "f", "f-1", "g"})

    def test_links_outside_code_are_found(self):
        page = "[a](b.md#c) and `[x](y)` and [`d`](e)\n```\n[f](g)\n```\n[h]: i.md\n"
        self.assertEqual(list(documents.links_of(page)), [(1, "b.md#c"), (1, "e"), (5, "i.md")])

    def test_fence_ends_with_a_fence_of_its_kind(self):
        page = "````\n```\n[a](b)\n```\n````\n[c](d)\n"
        self.assertEqual(list(documents.links_of(page)), [(6, "d")])

    def test_dead_target_and_dead_anchor_are_faults(self):
        with tempfile.TemporaryDirectory() as directory:
            page = pathlib.Path(directory, "a.md")
            page.write_text("# B\n")
            pages = documents.Pages([page])
            self.assertIsNone(pages.fault(page, "b"))
            self.assertIn("#c", pages.fault(page, "c"))
            self.assertIn("not exist", pages.fault(page.with_name("d.md"), ""))

    def test_block_of_commands_needs_a_mark(self):
        for page, faults in [
            ("```\nls\n```\n", 1),
            ("```yaml\na: b\n```\n", 0),
            (documents.NOT_RUN + "\n```\nls\n```\n", 0),
            ("<!-- run by the scenario first-light -->\n```console\n$ ls\n```\n", 0),
            ("<!-- run by the scenario no-such -->\n```\nls\n```\n", 1),
        ]:
            self.assertEqual(len(list(documents.mark_faults("a.md", page, '"first-light"'))), faults, page)


class Book(unittest.TestCase):
    def test_dead_links_of_the_html_are_faults(self):
        with tempfile.TemporaryDirectory() as directory:
            pathlib.Path(directory, "a.html").write_text('<p id="x"><a href="b.html"></a><a href="#x"></a><a href="#y"></a>')
            faults = list(documents.check_book(pathlib.Path(directory)))
            self.assertEqual(len(faults), 2, faults)

    def test_links_are_rewritten_for_the_book(self):
        for page, link, expected in [
            ("a.md", "../README.md#b", book.REPOSITORY + "README.md#b"),
            ("protocol/a.md", "../../e2e/src", book.REPOSITORY + "e2e/src"),
            ("protocol/a.md", "../observe.md", "../observe.md"),
            ("a.md", "protocol/README.md#b", "protocol/index.md#b"),
            ("protocol/a.md", "README.md", "index.md"),
            ("a.md", "https://example.com/README.md", "https://example.com/README.md"),
            ("a.md", "#b", "#b"),
        ]:
            self.assertEqual(book.rewritten(page, f"[x]({link})"), f"[x]({expected})")


if __name__ == "__main__":
    unittest.main()
