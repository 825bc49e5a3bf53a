"""What a page shows of each study."""
