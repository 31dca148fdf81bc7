"""The HTTP face: server, guard, ingest, API."""
