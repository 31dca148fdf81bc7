"""Background work: every loop is a `run_once(now)` in one supervised shell."""
