"""What the pages of the backtest report are made of: frame, style sheet, pictures, tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from training.chart_style import to_svg

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<header><h1>{title}</h1><p>{subtitle}</p></header>
<nav>{index}</nav>
<main>
{body}
</main>
</body>
</html>
"""

STYLE = """
:root { --page: #f6f7f9; --card: #ffffff; --ink: #1b1d21; --soft: #626873; --line: #e2e5ea; --good: #1d7a4f;
  --mark: #eaf5ef; }
@media (prefers-color-scheme: dark) {
  :root { --page: #14161a; --card: #1c1f25; --ink: #e6e8ec; --soft: #9aa1ad; --line: #31363f; --good: #6fcf9f;
    --mark: #1d2d26; } }
* { box-sizing: border-box; }
html { scroll-behavior: smooth; scroll-padding-top: 3.5rem; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
header, main { max-width: 1060px; margin: 0 auto; padding: 0 1.2rem; }
header { padding-top: 2.2rem; }
h1 { font-size: 1.55rem; line-height: 1.25; margin: 0; overflow-wrap: anywhere; }
header p { color: var(--soft); margin: .3rem 0 1rem; }
nav { position: sticky; top: 0; z-index: 1; background: var(--page); border-bottom: 1px solid var(--line);
  display: flex; flex-wrap: wrap; justify-content: center; gap: .2rem 1.2rem; padding: .55rem; }
nav a { color: var(--soft); text-decoration: none; font-weight: 600; font-size: .9rem; }
nav a:hover { color: var(--ink); text-decoration: underline; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: .4rem 1.4rem 1.2rem;
  margin: 1.3rem 0; }
h2 { font-size: 1.2rem; margin: .9rem 0 .5rem; }
h3 { font-size: 1rem; margin: 1.2rem 0 .3rem; }
.lead { font-size: 1.02rem; margin: .45rem 0; padding-left: .8rem; border-left: 4px solid var(--line); }
.lead.good { border-color: var(--good); }
.lead.bad { border-color: #c9507a; }
.note, figcaption { color: var(--soft); font-size: .88rem; max-width: 78ch; }
figure { margin: 0 0 1rem; }
figure svg { display: block; width: 100%; height: auto; color: var(--ink); }
svg text { font-family: inherit; }
.wide { overflow-x: auto; margin: .9rem 0; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { padding: .34rem .6rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { color: var(--soft); font-weight: 600; white-space: normal; vertical-align: bottom; }
th:first-child, td:first-child { text-align: left; }
tr.best { background: var(--mark); font-weight: 650; }
tr.best td:first-child { color: var(--good); }
tr.model { font-weight: 600; }
tr.baseline { color: var(--soft); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1.2rem; font-size: .92rem; margin: .8rem 0; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
details { border-top: 1px solid var(--line); padding: .5rem 0; }
summary { cursor: pointer; font-weight: 600; }
pre { overflow-x: auto; background: var(--page); border: 1px solid var(--line); border-radius: 8px;
  padding: .7rem .9rem; font-size: .85rem; }
@media print { nav { display: none; } section { break-inside: avoid; border: 0; } }
"""


def picture(figure: Figure, heading: str, caption: str) -> str:
    """A picture with its heading and caption; headings differ within a page."""
    return (
        f"<figure><h3>{escape(heading)}</h3>{to_svg(figure, label=heading)}"
        + (f"<figcaption>{escape(caption)}</figcaption>" if caption else "")
        + "</figure>\n"
    )


def table(header: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]) -> str:
    """A table; a row is its kind (see `kind`) and its cells."""

    head = "".join(f"<th>{escape(name)}</th>" for name in header)
    body = "".join(
        f"<tr class={kind}>" + "".join(f"<td>{escape(text)}</td>" for text in cells) + "</tr>" for kind, cells in rows
    )
    return f"<div class=wide><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>\n"


def facts(found: Mapping[str, Any]) -> str:
    """Names and what they stand for."""
    return "<dl>" + "".join(f"<dt>{escape(k)}</dt><dd>{escape(str(v))}</dd>" for k, v in found.items()) + "</dl>\n"


def fold(heading: str, body: str) -> str:
    """What is shown on demand."""
    return f"<details><summary>{escape(heading)}</summary>{body}</details>\n"


def note(text: str) -> str:
    """A remark in small print."""
    return f"<p class=note>{escape(text)}</p>\n"


def kind(report: dict[str, Any], row: dict[str, Any]) -> str:
    """How a forecaster's row looks: "best" (the model to ship), "model" or "baseline"."""
    return "best" if row["name"] == report["best_model"] else "model" if row["model"] else "baseline"
