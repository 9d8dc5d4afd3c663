"""Typesetting of the theory pages: Unicode formulas become MathML, which browsers show without a script."""

from __future__ import annotations

import re

from latex2mathml.converter import convert

SUPERSCRIPTS = {"⁰": "0", "¹": "1", "²": "2", "³": "3", "⁴": "4", "⁵": "5", "⁶": "6", "⁷": "7", "⁸": "8", "⁹": "9"}
SUPERSCRIPTS |= {"⁻": "-", "ᵀ": "T", "ᵈ": "d"}
SYMBOLS = {
    "Σ": r"\sum", "∂": r"\partial", "∇": r"\nabla", "√": r"\sqrt", "∞": r"\infty", "≤": r"\leq", "≥": r"\geq",
    "≈": r"\approx", "∝": r"\propto", "∈": r"\in", "⊆": r"\subseteq", "→": r"\to", "←": r"\leftarrow",
    "·": r"\cdot", "×": r"\times", "−": "-", "±": r"\pm", "½": r"\tfrac{1}{2}", "⟨": r"\langle", "⟩": r"\rangle",
    "‖": r"\|", "~": r"\sim", "…": r"\ldots",
    "⌊": r"\lfloor", "⌋": r"\rfloor", "∫": r"\int", "↔": r"\leftrightarrow", "∼": r"\sim",
}  # fmt: skip
ACCENTS = {"\u0307": "dot", "\u0302": "hat", "\u0304": "bar", "\u0303": "tilde"}  # combining marks
COMPOSED = {"ŷ": r"\hat{y}", "ẏ": r"\dot{y}", "ẇ": r"\dot{w}", "ż": r"\dot{z}"}
WORDS = ("min", "max", "ln", "log", "tr", "median", "vec", "softmax", "exp", "round", "diag", "cbrt", "abs", "lim")
CODE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
MATHEMATICAL = re.compile(
    r"[Α-ωϕ·√Σ∂∇ᵀ²³⁻¹½≤≥≈∝∈⊆⟨‖−ŷẋ̂̄̇]|\b[A-Za-z]_\w\b|\b[a-z]\*|[A-Za-z]\^|^[a-zA-Z]_\w+$|^[A-Za-z]$|[a-z]_\w+ ?[=<>(]"
)
NAME = re.compile(r"[\w.]*[a-z]{3,}[\w.]*\.[\w.]+|[\w]+\.py|[a-z_]{3,}/[a-z_]{3,}|^[a-z_]{4,}$|^--|[\"']")


def typeset(markdown: str) -> str:
    """Return a page whose formulas, in backticks or indented by four spaces, are MathML; names of code stay code."""
    parts = re.split(r"(^```.*?^```$)", markdown, flags=re.MULTILINE | re.DOTALL)
    for index in range(0, len(parts), 2):
        parts[index] = CODE.sub(_inline, re.sub(r"(?:^    .+\n)+", _display, parts[index], flags=re.MULTILINE))
    return "".join(parts)


def _inline(match: re.Match[str]) -> str:
    text = match[1]
    if NAME.search(text) or not MATHEMATICAL.search(text):
        return match[0]
    return _mathml(text) or match[0]


def _display(match: re.Match[str]) -> str:
    """Return a block of formulas, one per line, as MathML; text after three spaces is a remark."""
    lines = []
    for line in match[0].strip("\n").splitlines():
        formula, _, remark = line.strip().partition("   ")
        made = _mathml(formula)
        if made is None:
            return match[0]
        lines.append(f'<p class="formula">{made} <span>{remark.strip()}</span></p>')
    return "\n" + "\n".join(lines) + "\n"


def _mathml(text: str) -> str | None:
    """Return a formula as MathML; None where the formula cannot be read."""
    try:
        made = convert(latex(text)).replace("\n", "")
    except Exception:  # whatever it is, the formula is then shown as written
        return None
    return f"<span>{made}</span>"  # keeps the formula inline; without it, it would be a block


def latex(text: str) -> str:
    """Return a formula in Unicode as LaTeX.

    >>> latex("w_d* = a_d/c_d")
    'w_{d}^{*} = a_{d}/c_{d}'
    >>> latex("√(2η) vᵀ")
    '\\\\sqrt{2η} v^{T}'
    """
    text = re.sub(r"(?<![_^])\{([^{}]*(?:\{[^{}]*\}[^{}]*)*)\}", r"\\lbrace \1\\rbrace ", text)
    for mark, accent in ACCENTS.items():
        text = re.sub(rf"(\w){mark}", rf"\\{accent}{{\1}}", text)
    for letter, made in COMPOSED.items():
        text = text.replace(letter, made)
    text = re.sub(r"_(\{[^}]*\}|\([^)]*\)|[A-Za-z0-9,]+|[Α-ω]+)", lambda m: "_{" + m[1].strip("{}") + "}", text)
    text = re.sub(f"[{''.join(SUPERSCRIPTS)}]+", lambda m: "^{" + "".join(SUPERSCRIPTS[c] for c in m[0]) + "}", text)
    text = re.sub(r"(?<=[\w}′])\*(?=[^\w(]|$)", "^{*}", text)
    text = re.sub(r"\^\(([^()]*)\)", r"^{\1}", text).replace("′", "'")
    text = re.sub(r"√\(([^()]*)\)", r"√{\1}", text)
    text = re.sub(r"√(\w)", r"√{\1}", text)
    text = re.sub(r"(?<![A-Za-z\\{_])(" + "|".join(WORDS) + r")(?![A-Za-z])", r"\\operatorname{\1}", text)
    text = re.sub(r"(?<![A-Za-z\\{])([a-z]{4,}(?: [a-z]{2,})*)(?![A-Za-z}])", r"\\text{\1}", text)
    for symbol, command in SYMBOLS.items():
        text = text.replace(symbol, command + (" " if command[-1].isalpha() else ""))
    return text.replace("%", r"\%").replace("#", r"\#")
