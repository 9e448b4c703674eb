"""What a loader left out: counted by reason, the first ones named, logged but not in floods."""

import logging
from collections.abc import Sequence

from unclip.data.source import BadSample

log = logging.getLogger(__name__)

_NAMED = 10


class Report:
    """Skipped samples by reason. One that turns up again in a later epoch counts once."""

    def __init__(self) -> None:
        self._keys: dict[str, dict[str, str]] = {}

    @property
    def counts(self) -> dict[str, int]:
        """How many samples were skipped, by reason."""
        return {reason: len(keys) for reason, keys in self._keys.items()}

    @property
    def skipped(self) -> int:
        """How many samples were skipped altogether."""
        return sum(self.counts.values())

    def first(self, reason: str) -> tuple[str, ...]:
        """The keys of the first samples skipped for ``reason``."""
        return tuple(list(self._keys.get(reason, {}))[:_NAMED])

    def add(self, skipped: Sequence[BadSample]) -> None:
        """Count samples; the first ten of each reason are logged, then each power of ten."""
        for bad in skipped:
            keys = self._keys.setdefault(bad.reason, {})
            if bad.key in keys:
                continue
            keys[bad.key] = bad.detail
            count = len(keys)
            if count <= _NAMED:
                log.warning("skipped %s", bad)
            elif str(count).strip("0") == "1":
                log.warning("skipped %d samples: %s, the last %s", count, bad.reason, bad.key)

    def __str__(self) -> str:
        if not self._keys:
            return "nothing skipped"
        parts = (
            f"{count} × {reason} ({', '.join(self.first(reason)[:3])}{', …' if count > 3 else ''})"
            for reason, count in self.counts.items()
        )
        return "skipped " + "; ".join(parts)


def describe(bad: Sequence[BadSample]) -> str:
    """Name the first culprits, for an error."""
    return "; ".join(str(one) for one in bad[:3]) + (" …" if len(bad) > 3 else "")
