"""What carries tensors between processes for engines of others, such as Ray and Dask."""
