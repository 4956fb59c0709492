#!/usr/bin/env python3
"""Checks that every relative link and image of the Markdown files leads to something.

usage: check_links.py ROOT                 README.md and every other tracked *.md of a source tree
       check_links.py --installed CMAKE BUILD
                                           installs BUILD's documents into an empty folder, as the
                                           package does, and checks them there
"""

import pathlib
import re
import subprocess
import sys
import tempfile

LINK = re.compile(r"!?\[[^\]]*\]\(([^()\s]+)(?:\s+\"[^\"]*\")?\)")
CODE_BLOCK = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
CODE_SPAN = re.compile(r"`[^`\n]*`")
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
NOT_OURS = {"build", ".git", "examples"}  # examples/files are sample inputs, not documents


def anchors(text):
    """The names that a page's headings get on GitHub."""
    names = set()
    for heading in HEADING.findall(CODE_BLOCK.sub("", text)):
        plain = re.sub(r"[^\w\- ]", "", heading.strip().lower())
        names.add(plain.replace(" ", "-"))
    return names


def broken_links(root, page):
    prose = CODE_SPAN.sub("", CODE_BLOCK.sub("", page.read_text(encoding="utf-8")))
    for target in LINK.findall(prose):
        if re.match(r"[a-z]+:", target):  # another site
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        if not there.exists():
            yield target, "is not there"
        elif not there.is_relative_to(root):
            yield target, "lies outside the tree"
        elif anchor and anchor not in anchors(there.read_text(encoding="utf-8")):
            yield target, "has no such heading"


def check(root):
    root = root.resolve()
    pages = sorted(
        page
        for page in root.rglob("*.md")
        if not NOT_OURS & set(page.relative_to(root).parts)
    )
    if root / "README.md" not in pages:
        sys.exit(f"check_links: no README.md in {root}")
    links = 0
    failures = []
    for page in pages:
        links += len(LINK.findall(page.read_text(encoding="utf-8")))
        for target, why in broken_links(root, page):
            failures.append(f"{page.relative_to(root)}: {target} {why}")
    for failure in failures:
        print(failure)
    print(f"{len(pages)} pages, {links} links, {len(failures)} broken")
    return 1 if failures else 0


def main(args):
    if len(args) == 1:
        return check(pathlib.Path(args[0]))
    if len(args) != 3 or args[0] != "--installed":
        sys.exit(__doc__)
    with tempfile.TemporaryDirectory(prefix="plexus-links-") as prefix:
        subprocess.run(
            [args[1], "--install", args[2], "--component", "doc", "--prefix", prefix],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        return check(pathlib.Path(prefix) / "share" / "doc" / "plexus")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
