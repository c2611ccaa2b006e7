"""Intel TDX: ECDSA quotes of trust domains (TDs) with collateral, to verified claims."""
