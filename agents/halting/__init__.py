"""Networks that halt by Adaptive Computation Time: RAM, and ResNets per block or per position."""
