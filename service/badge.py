"""A gate's outcome as a small picture. Nothing in it comes from elsewhere, and nothing runs."""

from html import escape

from service.store.gates import Gate

COLOURS = {
    "pending": "#6b6b6b",
    "pass": "#1a7f37",
    "fail": "#b3261e",
    "undecided": "#8a6100",
    "canceled": "#6b6b6b",
}
CHARACTER = 6.6  #: a character's width, at 11 px and rounded up
LABEL = "lipschitz"

POLICY = "default-src 'none'"


def badge_svg(gate: Gate) -> str:
    """The picture as SVG."""
    left, right = (CHARACTER * len(text) + 12 for text in (LABEL, gate.outcome))
    about = escape(f"{gate.policy}@{gate.policy_version}: {gate.outcome}")
    width = left + right
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="20" role="img"'
        f' aria-label="{about}"><title>{about}</title>'
        f'<rect width="{left:g}" height="20" fill="#3b3b3b"/>'
        f'<rect x="{left:g}" width="{right:g}" height="20" fill="{COLOURS[gate.outcome]}"/>'
        '<g fill="#fff" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11"'
        ' text-anchor="middle">'
        f'<text x="{left / 2:g}" y="14">{LABEL}</text>'
        f'<text x="{left + right / 2:g}" y="14">{gate.outcome}</text></g></svg>\n'
    )
