"""Short scripts that show the whole toolchain; the tests run them."""
