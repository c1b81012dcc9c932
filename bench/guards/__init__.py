"""What the guards cost and hold, measured by hand."""
