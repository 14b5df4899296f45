"""The files of a run, read and written in one place; imports nothing that trains, tests or draws."""
