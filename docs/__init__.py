"""The documentation: written pages, pages made from the code, and the program that builds them."""
