"""The command ``emacheck audit`` and the processes it starts."""
