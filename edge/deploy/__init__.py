"""What a device in the field needs besides answers: bundles for offline use, model updates that go back, checks.

Installing itself is `jetson/install.sh`'s matter; it and the service's files travel with this room as data.
"""
