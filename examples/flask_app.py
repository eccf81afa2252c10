"""A Flask app: each order is tracked, and each logged error becomes a notification.

flask --app examples/flask_app.py run          (with FlashFlow running on the same machine, for the same user)
"""

from __future__ import annotations

from flask import Flask, request

from flashflow.client import Client, NotificationHandler

client = Client(app="flask-shop")
app = Flask(__name__)
app.logger.addHandler(NotificationHandler(client))
PRICES = {"tea": 4, "cake": 6}


@app.post("/orders/<item>")
def order(item: str) -> dict[str, int]:
    """Sell one item; an unknown one is an error, which Flask logs."""
    price = PRICES[item]
    client.track("order_paid", {"item": item, "price": price}, page_url=request.path)
    return {"price": price}
