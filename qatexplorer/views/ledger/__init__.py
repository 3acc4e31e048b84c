"""The ledger as tables."""
