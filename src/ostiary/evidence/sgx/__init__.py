"""Intel SGX: ECDSA quotes with collateral, of hardware and of the software platform, to verified claims."""
