"""The documented import path of Motoko: re-exports only."""
