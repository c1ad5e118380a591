"""All slices of a set of cases as tensors, and batches drawn from them."""
