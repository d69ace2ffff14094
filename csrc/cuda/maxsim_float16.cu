#include "maxsim_kernels.cuh"

METAINDEX_MATRIX_KERNELS(float16, Float16, false)
