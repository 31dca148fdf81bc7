"""Capture for other systems, one file each; imported only by `looseends.install`."""
