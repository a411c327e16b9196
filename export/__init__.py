"""The join between training and runtime: a checkpoint becomes a proven artifact."""
