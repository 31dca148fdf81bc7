"""Times: RFC 3339 on the wire, integers of unix nanoseconds inside. Pure, and without datetime (see days_from_civil)."""

from __future__ import annotations

import re

NS = 1_000_000_000
INT_MAX = (1 << 63) - 1
_TIME = re.compile(r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


def days_from_civil(year: int, month: int, day: int) -> int:
    """Days since 1970-01-01 of a proleptic Gregorian date, without importing datetime (30 ms in a client)."""
    year -= month <= 2
    era = year // 400
    of_era = year - era * 400
    of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    return era * 146_097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719_468


def _days_in(year: int, month: int) -> int:
    after = (year + month // 12, month % 12 + 1)
    return days_from_civil(*after, 1) - days_from_civil(year, month, 1)


def parse_time(value: object) -> int:
    """RFC 3339 text or an integer of unix nanoseconds -> unix nanoseconds. Raises ValueError in words."""
    if isinstance(value, int) and not isinstance(value, bool):
        if not 0 <= value <= INT_MAX:
            raise ValueError("a time as a number is unix nanoseconds between 0 and 2^63-1")
        return value
    match = _TIME.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError('a time is RFC 3339 with a zone ("2026-11-20T14:05:31.25Z") or unix nanoseconds')
    year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
    real = 1 <= month <= 12 and 1 <= day <= _days_in(year, month) and hour < 24 and minute < 60 and second <= 60
    if not (1970 <= year <= 2261 and real):
        raise ValueError("a time between 1970 and 2261, with real months, days, hours, minutes and seconds")
    total = days_from_civil(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second
    zone = match[8]
    if zone not in "Zz":
        minutes = int(zone[1:3]) * 60 + int(zone[4:6])
        total -= minutes * 60 if zone[0] == "+" else -minutes * 60
    result = total * NS + int((match[7] or "0").ljust(9, "0"))
    if result < 0:
        raise ValueError("a time after 1970-01-01T00:00:00Z")
    return result


def format_time(ns: int) -> str:
    """Unix nanoseconds -> RFC 3339 in UTC with microseconds, the one form we write."""
    seconds, rest = divmod(ns, NS)
    days, of_day = divmod(seconds, 86_400)
    z = days + 719_468
    era = z // 146_097
    of_era = z - era * 146_097
    year_of_era = (of_era - of_era // 1460 + of_era // 36_524 - of_era // 146_096) // 365
    of_year = of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    shifted = (5 * of_year + 2) // 153
    day = of_year - (153 * shifted + 2) // 5 + 1
    month = shifted + (3 if shifted < 10 else -9)
    year = year_of_era + era * 400 + (month <= 2)
    hour, of_hour = divmod(of_day, 3600)
    minute, second = divmod(of_hour, 60)
    return f"{year:04d}-{month:02d}-{day:02d}T{hour:02d}:{minute:02d}:{second:02d}.{rest // 1000:06d}Z"
