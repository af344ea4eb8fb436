"""The programs: each a dataclass of options and one screen of story."""
