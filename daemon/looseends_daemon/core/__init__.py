"""Decisions only: values in, values out. No I/O, no clock, no asyncio, no logging; held by tests/test_tidy.py."""
