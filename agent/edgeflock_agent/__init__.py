"""What runs on a board: download, verify, measure, try, commit or go back."""
