"""What was done and what it cost: on the console, as JSON, as one HTML file.

- `document`, `reading`, `columns`, `rows`, `difference`: all of it as plain data.
- `console`, `printing`: for people at a terminal; `html`: for those they show it to.
"""
