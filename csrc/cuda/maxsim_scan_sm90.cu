#include "maxsim_scan_sm90.hpp"

#include <cuda.h>
#include <cuda_runtime.h>

#include <algorithm>

#include "check.hpp"
#include "sm90/scan.hpp"

namespace metaindex::device {

namespace sm90 {

template <Codec kCodec>
cudaError_t launch(const Scan& scan, const CUtensorMap& queries, cudaStream_t stream);

extern template cudaError_t launch<Codec::float16>(const Scan&, const CUtensorMap&, cudaStream_t);
extern template cudaError_t launch<Codec::bfloat16>(const Scan&, const CUtensorMap&, cudaStream_t);
extern template cudaError_t launch<Codec::int8>(const Scan&, const CUtensorMap&, cudaStream_t);

}  // namespace sm90

namespace {

using namespace sm90;

int multiprocessors() {
    int device = 0, count = 0;
    check(cudaGetDevice(&device));
    check(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device));
    return count;
}

}  // namespace

void maxsim_scan_sm90(const Table& table, const Queries& queries, int32_t r_c, const Runs& runs, const uint8_t* allow,
                      const Output& output, const Boxes& boxes, Stream stream) {
    if (runs.count == 0 || queries.batch == 0) return;
    const int processors = multiprocessors();
    Scan scan{table, queries, runs, allow, output, boxes, {}, r_c, 0, 0, 0};
    scan.tiling = tiling({table.codec, table.dim, r_c, queries.batch, queries.tokens, processors});
    alignas(64) CUtensorMap map;
    encode(query_box(queries, table.dim, table.codec, scan.tiling), &map);
    const auto start = table.codec == Codec::int8       ? launch<Codec::int8>
                       : table.codec == Codec::bfloat16 ? launch<Codec::bfloat16>
                                                        : launch<Codec::float16>;
    for (; scan.first_tile < scan.tiling.tiles; scan.first_tile += scan.wave) {
        scan.wave = std::min(scan.tiling.wave, scan.tiling.tiles - scan.first_tile);
        scan.step = blocks_per_tile(scan.wave, processors, runs.count);
        check(start(scan, map, static_cast<cudaStream_t>(stream)));
    }
}

}  // namespace metaindex::device
