"""Networks unlike EMANet, what is broken in them, and the page of what the audit says of them."""
