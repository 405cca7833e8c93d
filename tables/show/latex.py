"""A grid and its prose in LaTeX; needs booktabs."""

import re
from collections.abc import Sequence
from itertools import groupby

from tables.paper import Table
from tables.show.layout import Line, Number, has_verdicts, trials

ESCAPES = {character: f"\\{character}" for character in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "−": "$-$",
    "–": "--",
    "—": "---",
    "±": r"$\pm$",
    "×": r"$\times$",
    "→": r"$\to$",
    "≥": r"$\ge$",
    "†": r"\dag{}",
    "…": r"\dots{}",
    "•": r"\textbullet{}",
}


def inline(text: str) -> str:
    """Text with LaTeX's characters escaped, `^x` raised and `commands` in typewriter."""
    escaped = "".join(ESCAPES.get(character, character) for character in text)
    raised = re.sub(r"\^(\\dag\{\}|\w+)", r"\\textsuperscript{\1}", escaped)
    return re.sub("`([^`]*)`", r"\\texttt{\1}", raised).replace("^", r"\textasciicircum{}")


def block(name: str, title: str, body: list[str], items: list[tuple[str, str]]) -> str:
    """A floating table, over both columns of a page: caption, tabular, and its prose in small print."""
    head = [r"\begin{table*}", r"\centering", rf"\caption{{{inline(title)}}}", rf"\label{{tab:{name}}}"]
    prose = [inline(f"{mark} {text}".strip()) + r"\par" for mark, text in items]
    small = [r"\smallskip\begin{minipage}{\linewidth}\footnotesize", *prose, r"\end{minipage}"]
    return "\n".join([*head, *body, *small, r"\end{table*}"])


def grid(tables: Sequence[Table], lines: list[Line], bold: bool = True) -> list[str]:
    """The tabular; tables side by side share the rows, under their titles."""
    windows = any(line.window for line in lines)
    ran = any(line.ours for line in lines)
    verdicts = has_verdicts(lines)
    align = "l" * (1 + windows)
    over, rules, header = [""] * (1 + windows), "", ["pre-train"] + ["window"] * windows
    for table in tables:
        first, width = len(align) + 1, len(table.metrics) + ran + verdicts + len(table.further)
        align += "l" * width
        over.append(rf"\multicolumn{{{width}}}{{c}}{{{inline(table.short)}}}")
        rules += rf"\cmidrule(lr){{{first}-{first + width - 1}}}"
        header += (
            [inline(table.heading(metric)) for metric in table.metrics] + ["trials"] * ran + ["verdict"] * verdicts
        )
        header += map(inline, table.further)
    body = []
    for group, of_group in groupby(lines, key=lambda line: line.group):
        body += [rf"\multicolumn{{{len(align)}}}{{l}}{{\emph{{{inline(group)}}}}} \\"] if group else []
        for line in of_group:
            indent = r"\quad " * (line.ours and tables[0].reports)
            row = [indent + inline(line.label)] + [line.window] * windows
            for side in line.sides:
                row += [_number(number, bold) for number in side.numbers]
                row += (
                    [trials(side)] * ran + [inline(side.verdict)] * verdicts + [inline(text) for text in side.further]
                )
            body.append(" & ".join(row) + r" \\")
    beside = len(tables) > 1
    above = [" & ".join(over) + r" \\", rules] if beside else []
    return [
        *[r"\scriptsize\setlength{\tabcolsep}{2pt}"] * beside,
        rf"\begin{{tabular}}{{{align}}}",
        r"\toprule",
        *above,
        " & ".join(header) + r" \\",
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}",
    ]


def _number(number: Number, bold: bool) -> str:
    value = inline(number.value)
    value = rf"\textbf{{{value}}}" if bold and number.best else value
    delta = f"({inline(number.delta)})" if number.delta else ""
    return " ".join(part for part in (value, inline(number.spread), delta) if part)
