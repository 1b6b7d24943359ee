"""Texts that a page must show and never run, and one that no line can be broken in."""

from __future__ import annotations

# Each sets the variable if it runs, from where a label, a text or an attribute may stand.
ATTACKS = (
    "<script>window.ran='script'</script>",
    "<img src=x onerror=\"window.ran='onerror'\">",
    "<svg/onload=window.ran='svg'>",
    "</script><script>window.ran='closed'</script>",
    "</title></style><script>window.ran='title'</script>",
    '" onmouseover="window.ran=\'attribute\'" autofocus onfocus="window.ran=\'focus\'" x="',
    "<iframe srcdoc=\"<script>parent.ran='iframe'</script>\"></iframe>",
    "<link rel=stylesheet href=http://evil.example/a.css><img src=http://evil.example/a.png>",
    "<meta http-equiv=refresh content='0;url=http://evil.example/'>",
    "{{ 7 * 7 }}{% raw %}",
)
HOSTILE = "".join(ATTACKS)
LONG = "a_label_without_any_place_to_break_it_" * 6
