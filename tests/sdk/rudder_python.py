"""Sends one event of every type with rudder-sdk-python, unmodified, which compresses what it sends."""
import sys
from rudderstack.analytics.client import Client

url, write_key, run = sys.argv[1:4]

errors = []
client = Client(write_key, host=url, on_error=lambda error, _batch: errors.append(error))
user, device = f"{run}-user", f"{run}-device"
client.track(user, "Order Completed", {"revenue": 12.5, "currency": "EUR"}, message_id=f"{run}-track")
client.page(user, "shop", "Home", {"url": "https://shop.example/"}, message_id=f"{run}-page")
client.screen(user, "app", "Start", {}, message_id=f"{run}-screen")
client.track(None, "Product Viewed", {"sku": "1"}, anonymous_id=device, message_id=f"{run}-anonymous")
client.identify(user, {"email": f"{run}@example.com", "name": "Ann Ä"}, anonymous_id=device, message_id=f"{run}-identify")
client.group(user, f"{run}-company", {"plan": "pro"}, message_id=f"{run}-group")
client.alias(f"{run}-earlier", user, message_id=f"{run}-alias")
client.shutdown()
if errors:
    sys.exit(f"rudder-sdk-python reports: {errors}")
