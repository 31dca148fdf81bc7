"""A service that would charge a customer if anybody made it: one line in CHARGES for each time its function ran."""

from __future__ import annotations

import logging
import os
import sys

import looseends


@looseends.task(name="shop.charge", replay=True)
def charge(order_id: int) -> None:
    """Charge somebody."""
    with open(os.environ["CHARGES"], "a") as file:
        file.write(f"{order_id}\n")


def main() -> None:
    """Stay alive until standard input ends."""
    logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(name)s %(message)s")
    looseends.init(service="shop")
    print("service is up", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
