"""Recursive Expert Delegation on Ray: many labels, few examples, a judge where it pays."""
