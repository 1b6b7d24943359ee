"""The algorithm: pure functions over arrays; no Ray, no torch, no network, no clock."""
