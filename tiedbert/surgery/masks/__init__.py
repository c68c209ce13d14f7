"""Masks in surgery: as tensors, as layers receive them, and in the order of calls."""
