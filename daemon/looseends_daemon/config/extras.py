"""What only an extra can judge: whether Apprise understands an address. It is imported when somebody uses it, not before."""

from __future__ import annotations

import difflib
import logging
import warnings
from typing import Any

MISSING = 'needs pip install "looseends[apprise]"'


def apprise_fault(url: str) -> str | None:
    """What is wrong with an address of Apprise, in words that follow the key and never hold the address; None: nothing."""
    log = logging.getLogger("apprise")
    before, log.disabled = log.disabled, True  # it would print the address, password and all
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what it imports itself
            import apprise

            made = apprise.Apprise.instantiate(url, suppress_exceptions=True)
    except ImportError:
        return MISSING
    finally:
        log.disabled = before
    return None if made is not None else _unknown(url)


def _unknown(url: str) -> str:
    from apprise.manager_plugins import NotificationManager

    scheme = url.partition("://")[0].lower()
    manager: Any = NotificationManager
    schemes = sorted(manager().schemas())
    if scheme in schemes:
        return f"is no complete {scheme}:// address; https://github.com/caronc/apprise/wiki shows its form"
    close = difflib.get_close_matches(scheme, schemes, n=1, cutoff=0.6)
    return f"begins with {scheme}://, which Apprise does not know" + (f', did you mean "{close[0]}://"?' if close else "")
