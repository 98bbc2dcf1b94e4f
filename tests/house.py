#!/usr/bin/env python3
"""Measures how the code is laid out and named, and prints each figure with its limit.

    tests/house.py             prints the table
    tests/house.py --strict    ends with 1 if a figure is over its limit

Production code is every Rust file below host/ except tests, build scripts and items with `#[cfg(test)]`. Circles are
found by the structure test, which fails unless tests/integration/known_circles.txt lists exactly those that exist.
"""

import re
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CIRCLES = "tests/integration/known_circles.txt"

# A comment, a string or a character literal: what a brace or a keyword in it must not be taken for code.
LITERAL = re.compile(
    r"""//[^\n]*|/\*.*?\*/|\br(?P<hashes>\#*)".*?"(?P=hashes)|"(?:\\.|[^"\\])*"|'(?:\\[^']+|[^'\\])'""",
    re.DOTALL,
)
TYPE = re.compile(r"^\s*(?:pub(?:\([^)]*\))?\s+)?(?:struct|enum|trait|union)\s+(\w+)", re.MULTILINE)
MODULE = re.compile(r"^\s*(?:pub(?:\([^)]*\))?\s+)?mod\s+\w+", re.MULTILINE)
FUNCTION = re.compile(r"\bfn\s+\w+")
TEST_ITEM = re.compile(r"#\[cfg\((?:test|all\(test[^]]*)\)\]")


class Source:
    """A production file. `code` has the same lines as the file, with comments and literals left empty."""

    def __init__(self, path):
        self.lines = path.read_text().splitlines()
        self.code = without_tests(LITERAL.sub(blank, path.read_text()))

    def production_lines(self):
        """Lines with code."""
        return sum(1 for line in self.code.splitlines() if line.strip())

    def bodies(self):
        """Yields the numbers of the lines in function bodies, from 0, without the lines of the braces."""
        for function in FUNCTION.finditer(self.code):
            start = body_start(self.code, function.end())
            if start is not None:
                end = closing_brace(self.code, start)
                yield from range(self.code.count("\n", 0, start) + 1, self.code.count("\n", 0, end))


def blank(match):
    return re.sub(r"[^\n]", " ", match[0])


def without_tests(code):
    """Blanks every item with `#[cfg(test)]`: to its semicolon or its closing brace."""
    while marker := TEST_ITEM.search(code):
        item = re.compile(r"[;{]").search(code, marker.end())
        end = len(code) if item is None else item.end()
        if item is not None and item[0] == "{":
            end = closing_brace(code, item.start()) + 1
        code = code[: marker.start()] + re.sub(r"[^\n]", " ", code[marker.start() : end]) + code[end:]
    return code


def body_start(code, at):
    """Returns where the body of a function begins, or None if it has none."""
    depth = 0
    for position in range(at, len(code)):
        if code[position] in "([":
            depth += 1
        elif code[position] in ")]":
            depth -= 1
        elif depth == 0 and code[position] in "{;":
            return position if code[position] == "{" else None
    return None


def closing_brace(code, opening):
    depth = 0
    for position in range(opening, len(code)):
        depth += {"{": 1, "}": -1}.get(code[position], 0)
        if depth == 0:
            return position
    return len(code)


def is_production(path):
    relative = path.relative_to(ROOT)
    return not (path.name.endswith("tests.rs") or {"tests", "build", "build.rs"} & set(relative.parts))


def crates():
    """Returns the production files of each crate below host/, by the folder of the crate."""
    folders = [manifest.parent for manifest in sorted(ROOT.glob("host/**/Cargo.toml"))]
    return {
        str(folder.relative_to(ROOT)): [Source(path) for path in sorted(folder.glob("src/**/*.rs")) if is_production(path)]
        for folder in folders
    }


def percent(part, whole):
    return 100 * part / max(whole, 1)


def shared_names(crate):
    """Returns how many types of a crate share their name with another one, and how many types there are."""
    names = Counter(name for source in crate for name in TYPE.findall(source.code))
    return sum(count for count in names.values() if count > 1), names.total()


def one_word_names(crate):
    names = [name for source in crate for name in TYPE.findall(source.code)]
    return sum(1 for name in names if re.fullmatch(r"[A-Z][a-z0-9]*|[A-Z0-9]+", name)), len(names)


def body_comments(crate):
    """Returns how many lines in function bodies are `//` comments, and how many lines are not empty."""
    comments = lines = 0
    for source in crate:
        for number in set(source.bodies()):
            text = source.lines[number].strip()
            lines += bool(text)
            comments += text.startswith("//")
    return comments, lines


def total(crates, measure):
    parts, wholes = zip(*(measure(crate) for crate in crates.values()))
    return sum(parts), sum(wholes)


def known_circles():
    lines = (ROOT / CIRCLES).read_text().splitlines()
    return sum(1 for line in lines if line and not line.startswith("#"))


def figures():
    """Yields name, figure, unit, the least and the most that are allowed (None: not limited)."""
    host = crates()
    sources = [source for crate in host.values() for source in crate]
    shared, types = total(host, shared_names)
    yield f"types ({types}) that share their name with another of the crate", percent(shared, types), " %", None, 10
    yield "type names of one word", percent(*total(host, one_word_names)), " %", None, 35
    yield "`//` lines in function bodies", percent(*total(host, body_comments)), " %", 2, 5
    # A file is some 200 lines of code: fuller ones pass the limit of the structure test, emptier ones hide what is where.
    modules, lines = sum(len(MODULE.findall(source.code)) for source in sources), sum(source.production_lines() for source in sources)
    yield f"`mod` declarations ({modules}) for 1,000 lines of production code", round(1000 * modules / lines, 1), "", None, 5.5
    yield "circles of files", known_circles(), "", None, 0
    yield "words of README.md", len((ROOT / "README.md").read_text().split()), "", None, 1500
    yield "lines of production code", lines, "", None, None


def main():
    missed = 0
    for name, figure, unit, least, most in figures():
        text = f"{figure:.1f}" if unit else f"{figure:,}"
        limit = " to ".join(f"{bound:,}" for bound in (least, most) if bound is not None)
        limit = "" if not limit else f"   at most {limit}{unit}" if least is None else f"   {limit}{unit}"
        over = (least is not None and figure < least) or (most is not None and figure > most)
        missed += over
        print(f"{name:62} {text:>7}{unit:2}{limit}{'   MISSED' if over else ''}")
    return 1 if missed and "--strict" in sys.argv[1:] else 0


if __name__ == "__main__":
    sys.exit(main())
