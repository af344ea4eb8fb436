"""Written pages, pages generated from the code, and the program that builds both."""
