"""A package as somebody else would write it; the tests install it."""
