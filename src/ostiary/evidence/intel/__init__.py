"""What SGX and TDX quotes have in common: their frame, Intel's collateral, and the decision over both."""
