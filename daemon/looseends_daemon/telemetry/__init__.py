"""What the daemon tells of itself and of tasks to others: Prometheus by being asked, OTLP by sending."""
