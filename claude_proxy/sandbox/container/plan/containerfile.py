"""Containerfiles with build arguments added to each stage; pure.

A program that a build runs has to use the proxy and trust its CA, and nothing of that may stay in
the image. Build arguments are what Containerfile(5) has for this: variables of the build alone.
Each stage must declare those that it uses, so the declarations are added after each FROM.
"""

from collections.abc import Iterator, Sequence

from claude_proxy.deferred.patterns import lazy_pattern

# Containerfile(5): parser directives are the comments before the first instruction.
_DIRECTIVE = lazy_pattern(r"#\s*(syntax|escape|check)\s*=\s*(\S+)", 2)  # re.IGNORECASE
_FROM = lazy_pattern(r"\s*FROM\s", 2)
_HEREDOC = lazy_pattern(r"<<(-?)(['\"]?)([A-Za-z_][A-Za-z0-9_]*)\2")
_TAKES_HEREDOC = lazy_pattern(r"\s*(ONBUILD\s+)?(RUN|COPY|ADD)\s", 2)


def with_arguments(text: str, names: Sequence[str]) -> str:
    """Return the Containerfile `text` with the build arguments `names` declared in each stage."""
    declared = " ".join(names)
    lines: list[str] = []
    for instruction in _instructions(text):
        lines += instruction
        if names and _FROM.match(instruction[0]):
            lines.append(f"ARG {declared}")
    return "\n".join(lines) + "\n"


def _instructions(text: str) -> Iterator[list[str]]:
    """Yield the lines of each instruction, of each comment and of each empty line."""
    lines = text.splitlines()
    escape = _escape_of(lines)
    at = 0
    while at < len(lines):
        end = _end_of_instruction(lines, at, escape)
        yield lines[at:end]
        at = end


def _escape_of(lines: Sequence[str]) -> str:
    for line in lines:
        found = _DIRECTIVE.match(line)
        if found is None:
            break
        if found[1].lower() == "escape":
            return found[2]
    return "\\"


def _end_of_instruction(lines: Sequence[str], at: int, escape: str) -> int:
    first = lines[at]
    if not first.strip() or first.lstrip().startswith("#"):
        return at + 1
    end, words = at + 1, first
    while end < len(lines) and _continues(lines[end - 1], escape):
        # Comments and empty lines between the lines of an instruction are left out of it.
        words += "\n" + lines[end]
        end += 1
    if not _TAKES_HEREDOC.match(first):
        return end
    for dash, _, word in _HEREDOC.findall(words):
        end = _end_of_heredoc(lines, end, word, dash)
    return end


def _continues(line: str, escape: str) -> bool:
    return line.rstrip().endswith(escape) or line.lstrip().startswith("#") or not line.strip()


def _end_of_heredoc(lines: Sequence[str], at: int, word: str, dash: str) -> int:
    for number in range(at, len(lines)):
        line = lines[number].lstrip("\t") if dash else lines[number]
        if line == word:
            return number + 1
    return len(lines)
