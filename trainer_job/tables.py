"""The comparison as a table: once as data, then for a terminal (rich), for plain logs and for Markdown.

Input is a results.json record; it does not know how the record came about.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TextIO

Record = Mapping[str, Any]


def figure(value: float | None, digits: int = 3) -> str:
    """A number for people; a dash for none."""
    return "–" if value is None else f"{value:.{digits}f}"


def with_error(entry: Mapping[str, Any]) -> str:
    """mean ± s.d. over seeds, or ± standard error over rows for a single seed."""
    spread = entry.get("sd") if entry.get("sd") is not None else entry.get("se")
    mean = figure(entry.get("mean"))
    return mean if spread is None else f"{mean} ± {spread:.3f}"


def comparison(record: Record) -> tuple[list[str], list[list[str]]]:
    """(header, rows): variants in order, then the baselines; test figures, macro-F1 for each domain."""
    domains = list(next(iter(record["variants"].values()))["per_domain"]) if record["variants"] else []
    header = [
        "variant",
        "accuracy",
        "macro-F1",
        *domains,
        "val. macro-F1",
        "Δ to none",
        "p",
        "parameters",
        "tokens/s",
    ]
    chosen = (record["selected"] or {}).get("variant")
    against = {
        entry["a"]: entry
        for entry in record["comparisons"]
        if entry["split"] == "test" and entry["b"] == "none"
    }
    rows = []
    for name, entry in record["variants"].items():
        test = entry["test"]
        other = against.get(name)
        rows.append(
            [
                f"{name} *" if name == chosen else name,
                with_error(test["accuracy"]),
                with_error(test["macro_f1"]),
                *(figure(entry["per_domain"][domain]["macro_f1"]["mean"]) for domain in domains),
                figure(entry["validation"]["macro_f1"]["mean"]),
                f"{other['delta']:+.3f}" if other else "–",
                figure(other["p_corrected"], 2) if other else "–",
                _size(entry["parameters"], entry["added_percent"]),
                figure(entry["tokens_per_second"], 0),
            ]
        )
    rows += [
        _baseline(title, entry, domains)
        for title, entry in (
            ("TF-IDF + LR", record["baselines"]["tfidf_logreg"]),
            ("majority", record["baselines"]["majority"]),
        )
        if entry
    ]
    return header, rows


def _size(parameters: int, added: float | None) -> str:
    growth = f" (+{added:.1f} %)" if added else ""
    return f"{parameters / 1e6:.1f} M{growth}"


def _baseline(title: str, entry: Mapping[str, Any], domains: list[str]) -> list[str]:
    test = entry["test"]
    per_domain = [figure(test["per_domain"].get(domain, {}).get("macro_f1")) for domain in domains]
    accuracy = with_error({"mean": test["accuracy"], "se": test["accuracy_se"]})
    validation = figure(entry["validation"]["macro_f1"])
    return [title, accuracy, figure(test["macro_f1"]), *per_domain, validation, "–", "–", "–", "–"]


def markdown(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table; the first column to the left, figures to the right."""
    lines = ["| " + " | ".join(header) + " |", "|:--|" + "--:|" * (len(header) - 1)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def print_comparison(record: Record, stream: TextIO) -> None:
    """Tables on a terminal, aligned plain lines elsewhere; then what is served, and the verdict."""
    header, rows = comparison(record)
    if stream.isatty():
        _print_tables(header, rows, stream)
    else:
        widths = [max(len(row[place]) for row in [header, *rows]) for place in range(len(header))]
        for row in [header, *rows]:
            cells = [
                row[0].ljust(widths[0]),
                *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)),
            ]
            stream.write("  ".join(cells).rstrip() + "\n")
    stream.write(f"{record['verdict']}\n")


def _print_tables(header: list[str], rows: list[list[str]], stream: TextIO) -> None:
    """Quality with cost, then domains: two narrow tables rather than one that a terminal squeezes."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    last = len(header) - 5  # validation, difference, p, parameters, tokens/s follow the domains
    groups = [
        ("On test, domain inferred; * is served", [0, 1, 2, last, last + 1, last + 2]),
        ("Macro-F1 by domain", [0, *range(3, last)]),
        ("Size and training speed", [0, last + 3, last + 4]),
    ]
    console = Console(file=stream)
    for title, places in groups:
        table = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
        for place in places:
            table.add_column(header[place], justify="left" if place == 0 else "right", no_wrap=True)
        for row in rows:
            if any(row[place] != "–" for place in places[1:]):
                table.add_row(*(row[place] for place in places))
        console.print(table)
