#include "maxsim_kernels.cuh"

METAINDEX_MATRIX_KERNELS(bfloat16, BFloat16, false)
