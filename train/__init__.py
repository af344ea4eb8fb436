"""The programs: each a dataclass of options and one screen of story."""

from dtram_env.optional import require

for package in ("torch", "safetensors", "tyro"):
    require(package, "train")
