"""The pages of the daemon: server-rendered, readable at 3 a.m., and complete without JavaScript."""
