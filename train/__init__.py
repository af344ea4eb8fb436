"""The training programs; what they share lies in the folders beside them."""

from dtram_env.optional import require

for package in ("torch", "safetensors", "tyro"):
    require(package, "train")
