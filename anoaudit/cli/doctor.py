"""`anoaudit doctor`."""

from __future__ import annotations


def command() -> int:
    """Check this installation: packages, GPU, network for weights."""
    from anoaudit.doctor import examine

    problems = 0
    for name, state, hint in examine():
        print(f"{'ok ' if not hint else '!! '} {name:<22} {state}")
        if hint:
            problems += 1
            print(f"{'':27}{hint}")
    return 3 if problems else 0
