"""One file or folder per technique; found through entry points, imported when used."""
