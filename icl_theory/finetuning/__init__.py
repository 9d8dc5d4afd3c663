"""The rule for other people's trainers: from the losses of examples over training to an upsampled fine-tuning set."""
