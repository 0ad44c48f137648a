"""Text for people, in tables, pictures and on the page."""

from __future__ import annotations

from .results import Result


def verdict(result: Result) -> str:
    """Returns `bona fide`, `spoof`, or why there is no verdict."""
    return "bona fide" if result.label == "bonafide" else result.label or result.undecided or "not judged"


def sentence(remark: str) -> str:
    """Returns a remark with a capital letter and a full stop."""
    return f"{remark[0].upper()}{remark[1:]}."


def clock(seconds: float) -> str:
    """65.25 → "1:05.2", 3665 → "1:01:05.0"."""
    tenths = int(seconds * 10)
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    return (f"{hours}:{minutes:02}" if hours else f"{minutes}") + f":{rest // 10:02}.{rest % 10}"


def signed(number: float | None) -> str:
    """Returns a number with two decimals and a true minus sign."""
    return "" if number is None else f"{number:.2f}".replace("-", "\N{MINUS SIGN}")


def chance(result: Result) -> str:
    """Returns a calibrated model's probability in words."""
    assert result.spoof_probability is not None and result.prior is not None
    share = "half" if result.prior == 0.5 else f"{100 * result.prior:.3g} %"
    return f"{100 * result.spoof_probability:.1f} % chance of being fake, if {share} of such recordings are"
