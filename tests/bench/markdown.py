# SPDX-License-Identifier: Apache-2.0
"""Numbers and tables as Markdown, and the words for what they were measured with."""


def transport_words(transport):
    delay = "" if "delay=" in transport else ", no simulated delay"
    return f"transport {transport}{delay}" if transport else "nothing remote"


def share_words(share):
    return f"{share} %" if share else "-"


def plain(value):
    """Three significant digits, without an exponent."""
    if value is None:
        return "-"
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:.{digits}f}"


def with_range(figure, scale=1.0):
    """median [confidence interval]"""
    if figure is None:
        return "-"
    return (
        f"{plain(figure.median * scale)} [{plain(figure.low * scale)}-"
        f"{plain(figure.high * scale)}]"
    )


def table(header, rows):
    if not rows:
        return ["Nothing was measured.", ""]
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return lines + [""]


def slug(transport):
    return transport.replace(",", "-").replace("=", "")
