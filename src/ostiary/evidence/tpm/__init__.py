"""TPM 2.0: quotes over platform configuration registers (PCRs), with whatever vouches for the key that signed them."""
