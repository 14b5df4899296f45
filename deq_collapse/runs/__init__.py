"""What one run leaves behind, read and written in one place; imports nothing that trains, tests or draws."""
