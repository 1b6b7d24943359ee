"""Texts and labels: tables in and out, clean rows, splits, and the shipped demo corpus."""
