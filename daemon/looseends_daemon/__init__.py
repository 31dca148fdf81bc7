"""The looseends daemon: stores what clients report, finds the gap, says so, and replays on request."""
