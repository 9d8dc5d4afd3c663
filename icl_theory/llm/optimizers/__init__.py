"""AdamW, Muon, and gradients that see the sharpness of the loss."""
