"""Architectures, one file each. B batch, L context, F input features, H horizon, D features for the head."""
