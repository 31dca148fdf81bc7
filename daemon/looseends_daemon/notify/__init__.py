"""One file per kind of endpoint that a notice can be sent to."""
