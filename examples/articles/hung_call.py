"""An outbound call without a time limit: the partner takes the connection, never answers, and a worker is gone.

    looseends instrument -- uvicorn --app-dir examples/articles hung_call:app
    curl -X POST 'http://127.0.0.1:8000/orders/7'

It is `stuck` once its deadline is over: five minutes, or what the daemon's configuration says:

    [[task]]
    match = "shop/*.notify_partner"
    deadline = "1s"
"""

from __future__ import annotations

import socket

from fastapi import BackgroundTasks, FastAPI

app = FastAPI()
partner = socket.create_server(("127.0.0.1", 0))  # takes connections into its backlog and never looks at them


def notify_partner(order_id: int) -> None:
    """No timeout: it waits for as long as the partner likes."""
    with socket.create_connection(partner.getsockname()) as call:
        call.sendall(f"POST /orders/{order_id} HTTP/1.1\r\nHost: partner\r\n\r\n".encode())
        call.recv(1)


@app.post("/orders/{order_id}")
async def order(order_id: int, tasks: BackgroundTasks) -> dict[str, int]:
    """Answers, then tells the partner."""
    tasks.add_task(notify_partner, order_id)
    return {"order_id": order_id}
