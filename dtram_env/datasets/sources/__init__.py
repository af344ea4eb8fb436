"""One module for each source of images: MNIST and its variants, Signpost, CUB, Cars, the user's
own folder. Each reads an official part, "train" or "test"; `listing` has what the sources of image
files share."""
