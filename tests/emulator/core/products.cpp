#include "products.hpp"

#include <algorithm>

#include "fragments.hpp"
#include "lanes.hpp"
#include "tensor_map.hpp"

namespace emulator {

namespace {

constexpr int kWarpRows = 16;  // each of the four warps of a warpgroup has its own
constexpr int kChunk = 16;     // bytes that lie together in every layout

uint64_t field(uint64_t descriptor, int from) { return (descriptor >> from & 0x3FFF) << 4; }

int first_row(const Warp& warp) { return warp.number() % 4 * kWarpRows; }

// Every run of kChunk bytes that the product reads of a matrix.
template <class Act>
void each_chunk(const SharedMatrix& matrix, int from_row, int rows, int depth, Act act) {
    const int numbers = kChunk / matrix.bytes;
    const int row_step = matrix.transposed ? numbers : 1, depth_step = matrix.transposed ? 1 : numbers;
    for (int row = from_row; row < from_row + rows; row += row_step) {
        for (int k = 0; k < depth; k += depth_step) act(row, k, matrix.address(row, k));
    }
}

// The matrix as doubles, through put(row, k, value).
template <class Put>
void read_matrix(Shared& shared, const SharedMatrix& matrix, Type type, int from_row, int rows, int depth, Put put) {
    const int numbers = kChunk / matrix.bytes;
    each_chunk(matrix, from_row, rows, depth, [&](int row, int k, uint64_t address) {
        const char* chunk = shared.at(address, kChunk);
        for (int i = 0; i < numbers; ++i) {
            uint64_t bits = 0;
            std::memcpy(&bits, chunk + i * matrix.bytes, static_cast<size_t>(matrix.bytes));
            put(row + (matrix.transposed ? i : 0), k + (matrix.transposed ? 0 : i), seen(bits, type));
        }
    });
}

ProductQueue& queue_of(Warp& warp) {
    if (!warp.products) warp.products = std::make_unique<ProductQueue>();
    return *warp.products;
}

void multiply(Warp& warp, const Product& product) {
    Shared& shared = warp.block.shared;
    const auto columns = static_cast<size_t>(product.columns), depth = static_cast<size_t>(product.depth);
    std::vector<double> a = product.rows, b(depth * columns), sums(kWarpRows * columns);
    const int first = first_row(warp);
    if (!product.a_from_registers) {
        a.resize(kWarpRows * depth);
        read_matrix(shared, product.a, product.type_a, first, kWarpRows, product.depth,
                    [&](int row, int k, double value) { a[size_t(row - first) * depth + size_t(k)] = value; });
    }
    read_matrix(shared, product.b, product.type_b, 0, product.columns, product.depth,
                [&](int column, int k, double value) { b[size_t(k) * columns + size_t(column)] = value; });
    for (size_t row = 0; row < kWarpRows; ++row) {
        double* sum = sums.data() + row * columns;
        for (size_t k = 0; k < depth; ++k) {
            const double factor = product.sign * a[row * depth + k];
            const double* from = b.data() + k * columns;
            for (size_t column = 0; column < columns; ++column) sum[column] += factor * from[column];
        }
    }
    std::vector<Slot*> registers;
    for (int32_t number : product.results) registers.push_back(warp.register_(number));
    const FragmentD layout = fragment_d(kWarpRows, product.type_d, product.columns);
    if (product.keeps) {
        read_fragment(layout, product.type_d, registers.data(),
                      [&](int row, int column, double value) { sums[size_t(row) * columns + size_t(column)] += value; });
    }
    write_fragment(layout, product.type_d, registers.data(), product.saturates,
                   [&](int row, int column) { return sums[size_t(row) * columns + size_t(column)]; });
    if (product.lost.empty()) return;
    write_fragment_where(layout, product.type_d, registers.data(), warp.block.poison,
                         [&](int row, int) { return product.lost[size_t(row)]; });
}

bool puts_up(const Warp& warp) { return warp.block.launch.options.rows_over_copies; }

// Every run of kChunk bytes that the product relies on.
template <class Act>
void each_source(Warp& warp, const Product& product, Act act) {
    const auto on_chunk = [&](int, int, uint64_t address) { act(address); };
    if (!product.a_from_registers && !puts_up(warp)) each_chunk(product.a, first_row(warp), kWarpRows, product.depth, on_chunk);
    each_chunk(product.b, 0, product.columns, product.depth, on_chunk);
}

// Remembers which rows come of memory that others write.
void note_losses(Warp& warp, Product& product) {
    if (!puts_up(warp) || product.a_from_registers) return;
    product.lost.resize(kWarpRows);
    const int first = first_row(warp);
    each_chunk(product.a, first, kWarpRows, product.depth, [&](int row, int, uint64_t address) {
        Block& block = warp.block;
        block.shared.at(address, kChunk);
        if (!block.shared.written_over(address, kChunk, product.writes) && block.races.ordered(warp.thread(0), address, kChunk))
            return;
        for (int i = 0; i < (product.a.transposed ? kChunk / product.a.bytes : 1); ++i)
            product.lost[size_t(row - first + i)] = true;
    });
}

void finish(Warp& warp, Product& product) {
    note_losses(warp, product);
    multiply(warp, product);
    each_source(warp, product, [&](uint64_t address) {
        warp.block.shared.finish_reading(address, kChunk);
        warp.block.races.read(warp.thread(0), warp.now(), product.line, address, kChunk);
    });
    auto& busy = warp.products->registers;
    for (const auto* numbers : {&product.results, &product.sources}) {
        for (int32_t number : *numbers) {
            if (--busy[number] == 0) busy.erase(number);
        }
    }
}

bool whole_warp(Warp& warp, const Instruction& i, Mask lanes) {
    if (!warp.together(lanes, ~Mask{0})) return false;
    require(lanes == ~Mask{0}, i.opcode, " needs all lanes of a warp");
    return true;
}

constexpr uint32_t kSaturates = 1, kRegistersA = 2, kScales = 4, kTransposes = 8;

// Operands: results, A as a descriptor or registers, descriptor of B, whether to add to the results, signs of A and B for
// floating-point numbers, whether A (if it is in shared memory) and B are transposed for 16-bit ones.
Outcome start(Warp& warp, const Instruction& i, Mask lanes) {
    if (!whole_warp(warp, i, lanes)) return Outcome::parked;
    const Kernel& kernel = warp.block.launch.kernel;
    ProductQueue& queue = queue_of(warp);
    Product product{};
    product.line = warp.line();
    product.columns = i.parameters[0];
    product.depth = i.parameters[1];
    product.type_d = static_cast<Type>(i.parameters[2]);
    product.type_a = static_cast<Type>(i.parameters[3]);
    product.type_b = static_cast<Type>(i.parameters[4]);
    product.saturates = i.flags & kSaturates;
    product.a_from_registers = i.flags & kRegistersA;
    const auto immediate = [&](int operand) { return static_cast<int32_t>(warp.read(i[operand])[0]); };
    product.keeps = warp.uniform(i[3], lanes, "scale-d") & 1;
    int next = 4;
    product.sign = 1;
    if (i.flags & kScales) {
        for (int k = 0; k < 2; ++k) {
            const int32_t scale = immediate(next++);
            require(scale == 1 || scale == -1, "wgmma scales by 1 or -1, not ", scale);
            product.sign *= scale;
        }
    }
    const int bytes_a = bits_of(product.type_a) / 8, bytes_b = bits_of(product.type_b) / 8;
    if (product.a_from_registers) {
        const Operand* members = kernel.members(i[1]);
        std::vector<const Slot*> registers;
        for (int k = 0; k < i[1].count; ++k) {
            product.sources.push_back(members[k].index);
            registers.push_back(warp.read(members[k]));
        }
        product.rows.resize(kWarpRows * static_cast<size_t>(product.depth));
        read_fragment(
            fragment_a(kWarpRows, product.depth, product.type_a), product.type_a, registers.data(),
            [&](int row, int k, double value) { product.rows[size_t(row) * size_t(product.depth) + size_t(k)] = value; });
    } else {
        product.a = {warp.uniform(i[1], lanes, "descriptors"), false, bytes_a};
        if (i.flags & kTransposes) product.a.transposed = immediate(next++) != 0;
    }
    product.b = {warp.uniform(i[2], lanes, "descriptors"), false, bytes_b};
    if (i.flags & kTransposes) product.b.transposed = immediate(next) != 0;

    const Operand* results = kernel.members(i[0]);
    for (int k = 0; k < i[0].count; ++k) product.results.push_back(results[k].index);
    require(warp.fenced(), "wgmma.mma_async before any wgmma.fence");
    for (const auto* numbers : {&product.results, &product.sources}) {
        for (int32_t number : *numbers) {
            require(!warp.written_since_fence(number),
                    "wgmma.mma_async uses a register that was written after the last wgmma.fence");
            ++queue.registers[number];
        }
    }
    product.writes = warp.block.shared.writes();
    note_losses(warp, product);
    each_source(warp, product, [&](uint64_t address) {
        warp.block.shared.start_reading(address, kChunk, warp.line());
        warp.block.races.read_by_proxy(warp.thread(0), warp.now(), warp.line(), address, kChunk);
    });
    queue.open.push_back(std::move(product));
    return Outcome::next;
}

Outcome fence(Warp& warp, const Instruction& i, Mask lanes) {
    if (!whole_warp(warp, i, lanes)) return Outcome::parked;
    queue_of(warp);
    warp.fence_registers();
    warp.met(lanes);
    return Outcome::next;
}

Outcome commit(Warp& warp, const Instruction& i, Mask lanes) {
    if (!whole_warp(warp, i, lanes)) return Outcome::parked;
    ProductQueue& queue = queue_of(warp);
    queue.groups.push_back(std::move(queue.open));
    queue.open.clear();
    return Outcome::next;
}

Outcome wait_group(Warp& warp, const Instruction& i, Mask lanes) {
    if (!whole_warp(warp, i, lanes)) return Outcome::parked;
    ProductQueue& queue = queue_of(warp);
    const auto pending = static_cast<size_t>(warp.read(i[0])[0]);
    for (; queue.groups.size() > pending; queue.groups.pop_front()) {
        for (Product& product : queue.groups.front()) finish(warp, product);
    }
    warp.met(lanes);
    return Outcome::next;
}

// wgmma.mma_async.sync.aligned.shape.d.a.b
void decode_start(Instruction& i, Modifiers& modifiers) {
    const std::string shape = modifiers.take_starting("m64n");
    const size_t at = shape.find('k');
    require(at != std::string::npos, i.opcode, " is not emulated");
    const int columns = std::stoi(shape.substr(4, at - 4)), depth = std::stoi(shape.substr(at + 1));
    if (modifiers.take("satfinite")) i.flags |= kSaturates;
    const Type d = modifiers.type(), a = modifiers.type(), b = modifiers.type();
    const auto byte = [](Type type) { return type == Type::s8 || type == Type::u8; };
    const bool halves = a == b && (a == Type::f16 || a == Type::bf16) && (d == Type::f32 || (d == Type::f16 && a == Type::f16));
    const bool singles = a == b && a == Type::tf32 && d == Type::f32;
    const bool bytes = byte(a) && byte(b) && d == Type::s32;
    require((halves && depth == 16) || (singles && depth == 8) || (bytes && depth == 32), i.opcode, " is not emulated");
    // Integers have fewer widths: 8, 16, 24, 32 and from there on multiples of 16.
    require(columns % 8 == 0 && columns >= 8 && columns <= 256 && (!bytes || columns <= 32 || columns % 16 == 0), i.opcode,
            ": there is no such shape");
    if (halves || singles) i.flags |= kScales;
    if (halves) i.flags |= kTransposes;
    require(i.count >= 4, i.opcode, " with ", i.count, " operands");
    if (i[1].kind == Operand::vector) i.flags |= kRegistersA;
    const int count = 4 + (i.flags & kScales ? 2 : 0) + (i.flags & kTransposes ? (i.flags & kRegistersA ? 1 : 2) : 0);
    require(i.count == count, i.opcode, " with ", i.count, " operands");
    require_kind(i, 0, {Operand::vector});
    for (int k = 2; k < count; ++k) require_kind(i, k, {Operand::register_, Operand::constant});
    require(i[0].count == registers_of(kWarpRows * columns, d), i.opcode, " with ", i[0].count, " results");
    require(!(i.flags & kRegistersA) || i[1].count == 4, i.opcode, " with ", i[1].count, " registers of A");
    i.parameters[0] = columns;
    i.parameters[1] = depth;
    i.parameters[2] = static_cast<int32_t>(d);
    i.parameters[3] = static_cast<int32_t>(a);
    i.parameters[4] = static_cast<int32_t>(b);
    i.run = &start;
}

void decode_product(Instruction& i, Modifiers& modifiers) {
    const int what = modifiers.take_one({"mma_async", "fence", "commit_group", "wait_group"});
    require(what >= 0 && modifiers.take("sync") && modifiers.take("aligned"), i.opcode, " is not emulated");
    if (what == 0) return decode_start(i, modifiers);
    if (what == 3) require_operands(i, 1);
    i.run = what == 1 ? &fence : what == 2 ? &commit : &wait_group;
}

}  // namespace

uint64_t SharedMatrix::address(int row, int k) const {
    constexpr uint32_t kSwizzles[] = {0, 128, 64, 32};
    const uint64_t start = field(descriptor, 0), leading = field(descriptor, 16), stride = field(descriptor, 32);
    const uint64_t base = descriptor >> 49 & 7;  // where the pattern starts, in units of 128 bytes
    const uint32_t swizzle = kSwizzles[descriptor >> 62];
    const uint64_t width = swizzle == 0 ? 1 : swizzle / kChunk;  // chunks of a row of the pattern
    const auto along = static_cast<uint64_t>(transposed ? row : k), across = static_cast<uint64_t>(transposed ? k : row);
    const uint64_t chunk = along * static_cast<uint64_t>(bytes) / kChunk, byte = along * static_cast<uint64_t>(bytes) % kChunk;
    // Eight rows of the pattern follow one another; the descriptor has the two distances beyond.
    uint64_t found = start + across % 8 * width * kChunk + byte;
    if (swizzle == 0) {
        found += transposed ? chunk * stride + across / 8 * leading : chunk * leading + across / 8 * stride;
    } else if (transposed) {
        found += chunk % width * kChunk + chunk / width * leading + across / 8 * stride;
    } else {
        found += chunk * kChunk + across / 8 * stride;
    }
    return swizzled(found - base * 128, swizzle) + base * 128;
}

void Warp::note_registers(const Instruction& instruction) {
    if (instruction.opcode.compare(0, 6, "wgmma.") == 0) return;
    const auto look = [&](const Operand& operand) {
        const bool used = (operand.kind == Operand::register_ || operand.kind == Operand::address) && operand.index >= 0;
        require(!used || !products->registers.count(operand.index), instruction.opcode,
                " uses a register of a wgmma.mma_async that nobody has waited for");
    };
    for (int k = 0; products->any() && k < instruction.count; ++k) {
        const Operand& operand = instruction[k];
        look(operand);
        if (operand.kind == Operand::vector) {
            for (int member = 0; member < operand.count; ++member) look(kernel_.members(operand)[member]);
        }
    }
    // Compilers move registers about behind a fence; it is written results that the fence is for.
    if (instruction.count == 0 || instruction.opcode.compare(0, 4, "mov.") == 0) return;
    const Operand& first = instruction[0];
    if (first.kind == Operand::register_) written_[first.index] = fences_;
    for (int member = 0; first.kind == Operand::vector && member < first.count; ++member) {
        const Operand& one = kernel_.members(first)[member];
        if (one.kind == Operand::register_) written_[one.index] = fences_;
    }
}

void add_products(Decoders& decoders) { decoders["wgmma"] = &decode_product; }

}  // namespace emulator
