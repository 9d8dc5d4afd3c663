"""AdamW, Muon, and sharpness-aware gradients."""
