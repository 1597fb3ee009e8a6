"""`anoaudit doctor`."""

from __future__ import annotations


def command() -> int:
    """Check this installation: packages, GPU, network for weights."""
    import shutil
    import textwrap

    from anoaudit.doctor import examine

    problems = 0
    # rich, which the other commands print with, may be what is missing.
    width = max(60, shutil.get_terminal_size((120, 24)).columns)
    for name, state, hint in examine():
        lead = f"{'ok ' if not hint else '!! '} {name:<17} "
        for text in filter(None, (state, hint)):
            print(textwrap.fill(text, width, initial_indent=lead, subsequent_indent=" " * len(lead)))
            lead = " " * len(lead)
        problems += bool(hint)
    return 3 if problems else 0
