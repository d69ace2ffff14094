#include "maxsim_kernels.cuh"

METAINDEX_MATRIX_KERNELS(int8, Int8, true)
