"""Prints where the contract is, for the option -d of componentize-py."""

from pathlib import Path

print(Path(__file__).with_name("provider.wit"))
