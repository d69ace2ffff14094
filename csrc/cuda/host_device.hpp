// Functions that kernels and host code share: what the host tests is what the device runs.
#pragma once

#ifndef METAINDEX_HOST_DEVICE
#ifdef __CUDACC__
#define METAINDEX_HOST_DEVICE __host__ __device__
#else
#define METAINDEX_HOST_DEVICE
#endif
#endif
