// ldmatrix, stmatrix, movmatrix, mma.sync.
#include <functional>

#include "decode.hpp"
#include "fragments.hpp"
#include "lanes.hpp"

namespace emulator {

namespace {

// 8 x 8 matrices of 16-bit numbers, of which lane 4r + c holds numbers 2c and 2c + 1 of row r; the addresses of the rows of
// matrix m are those of lanes 8m to 8m + 7.
struct Place {
    int row, column;
};
Place place_of(int lane, int half, bool transposed) {
    const int row = lane / 4, column = lane % 4 * 2 + half;
    return transposed ? Place{column, row} : Place{row, column};
}

constexpr uint32_t kTransposed = 1;

Outcome load_matrices(Warp& warp, const Instruction& i, Mask lanes) {
    if (!warp.together(lanes, ~Mask{0})) return Outcome::parked;
    require(lanes == ~Mask{0}, i.opcode, " needs all lanes of a warp");
    warp.met(lanes);
    const int matrices = i.parameters[1];
    const Operand* results = i[0].kind == Operand::vector ? warp.block.launch.kernel.members(i[0]) : &i[0];
    uint16_t rows[kLanes][8];
    for (int lane = 0; lane < 8 * matrices; ++lane) {
        const uint64_t address = warp.shared_address(static_cast<Space>(i.parameters[0]), warp.address(i[1], lane), lane);
        std::memcpy(rows[lane], warp.memory(Space::shared, address, 16, Access::read, lane, 16), 16);
    }
    for (int matrix = 0; matrix < matrices; ++matrix) {
        Slot* to = warp.write(results[matrix]);
        for (int lane = 0; lane < kLanes; ++lane) {
            Slot found = 0;
            for (int half = 0; half < 2; ++half) {
                const Place at = place_of(lane, half, i.flags & kTransposed);
                found |= static_cast<Slot>(rows[8 * matrix + at.row][at.column]) << (16 * half);
            }
            to[lane] = found;
        }
    }
    return Outcome::next;
}

Outcome store_matrices(Warp& warp, const Instruction& i, Mask lanes) {
    if (!warp.together(lanes, ~Mask{0})) return Outcome::parked;
    require(lanes == ~Mask{0}, i.opcode, " needs all lanes of a warp");
    warp.met(lanes);
    const int matrices = i.parameters[1];
    const Operand* values = i[1].kind == Operand::vector ? warp.block.launch.kernel.members(i[1]) : &i[1];
    uint16_t rows[kLanes][8];
    for (int matrix = 0; matrix < matrices; ++matrix) {
        const Slot* from = warp.read(values[matrix]);
        for (int lane = 0; lane < kLanes; ++lane) {
            for (int half = 0; half < 2; ++half) {
                const Place at = place_of(lane, half, i.flags & kTransposed);
                rows[8 * matrix + at.row][at.column] = static_cast<uint16_t>(from[lane] >> (16 * half));
            }
        }
    }
    for (int lane = 0; lane < 8 * matrices; ++lane) {
        const uint64_t address = warp.shared_address(static_cast<Space>(i.parameters[0]), warp.address(i[0], lane), lane);
        std::memcpy(warp.memory(Space::shared, address, 16, Access::write, lane, 16), rows[lane], 16);
    }
    return Outcome::next;
}

template <bool kLoad>
void decode_matrices(Instruction& i, Modifiers& modifiers) {
    const bool known = modifiers.take("sync") && modifiers.take("aligned") && modifiers.take("m8n8");
    constexpr int kNumbers[] = {1, 2, 4};
    const int number = modifiers.take_one({"x1", "x2", "x4"});
    if (modifiers.take("trans")) i.flags |= kTransposed;
    i.parameters[0] = static_cast<int32_t>(modifiers.space());
    require(known && number >= 0 && modifiers.type() == Type::b16 && i.count == 2, i.opcode, " is not emulated");
    i.parameters[1] = kNumbers[number];
    const Operand& values = i[kLoad ? 0 : 1];
    require((values.kind == Operand::vector ? values.count : 1) == i.parameters[1], i.opcode, " with ", values.count,
            " registers");
    require_kind(i, kLoad ? 1 : 0, {Operand::address});
    i.run = kLoad ? &load_matrices : &store_matrices;
}

Outcome transpose(Warp& warp, const Instruction& i, Mask lanes) {
    if (!warp.together(lanes, ~Mask{0})) return Outcome::parked;
    warp.met(lanes);
    uint16_t found[8][8];
    const Slot* from = warp.read(i[1]);
    for (int lane = 0; lane < kLanes; ++lane) {
        for (int half = 0; half < 2; ++half)
            found[lane / 4][lane % 4 * 2 + half] = static_cast<uint16_t>(from[lane] >> (16 * half));
    }
    Slot* to = warp.write(i[0]);
    for (int lane = 0; lane < kLanes; ++lane) {
        to[lane] = static_cast<Slot>(found[lane % 4 * 2][lane / 4]) | static_cast<Slot>(found[lane % 4 * 2 + 1][lane / 4])
                                                                          << 16;
    }
    return Outcome::next;
}

void decode_transpose(Instruction& i, Modifiers& modifiers) {
    const bool known = modifiers.take("sync") && modifiers.take("aligned") && modifiers.take("m8n8") &&
                       modifiers.take("trans") && modifiers.type() == Type::b16;
    require(known, i.opcode, " is not emulated");
    require_operands(i, 2);
    i.run = &transpose;
}

Outcome multiply(Warp& warp, const Instruction& i, Mask lanes) {
    if (!warp.together(lanes, ~Mask{0})) return Outcome::parked;
    require(lanes == ~Mask{0}, i.opcode, " needs all lanes of a warp");
    warp.met(lanes);
    const int m = i.parameters[0], n = i.parameters[1], k = i.parameters[2];
    const auto type_a = static_cast<Type>(i.parameters[4] & 255), type_b = static_cast<Type>(i.parameters[4] >> 8);
    const auto type_d = static_cast<Type>(i.parameters[3]);
    const bool saturate = i.flags;
    const auto registers = [&](int operand, const Slot** found) {
        const Operand& given = i[operand];
        const Operand* members = given.kind == Operand::vector ? warp.block.launch.kernel.members(given) : &given;
        for (int r = 0; r < std::max(given.count, 1); ++r) found[r] = warp.read(members[r]);
    };
    const Slot *a[8], *b[8], *c[8];
    registers(1, a);
    registers(2, b);
    registers(3, c);
    double rows[16][32], columns[8][32], sums[16][8];
    read_fragment(fragment_a(m, k, type_a), type_a, a, [&](int row, int at, double value) { rows[row][at] = value; });
    read_fragment(fragment_b(k, type_b), type_b, b, [&](int at, int column, double value) { columns[column][at] = value; });
    read_fragment(fragment_d(m, type_d), type_d, c, [&](int row, int column, double value) { sums[row][column] = value; });
    for (int row = 0; row < m; ++row) {
        for (int column = 0; column < n; ++column) {
            double sum = 0;  // exact for integers, and as good as for the numbers that matrix units take
            for (int at = 0; at < k; ++at) sum += rows[row][at] * columns[column][at];
            sums[row][column] += sum;
        }
    }
    Slot* d[8];
    const Operand* results = i[0].kind == Operand::vector ? warp.block.launch.kernel.members(i[0]) : &i[0];
    for (int r = 0; r < std::max(i[0].count, 1); ++r) d[r] = warp.write(results[r]);
    write_fragment(fragment_d(m, type_d), type_d, d, saturate, [&](int row, int column) { return sums[row][column]; });
    return Outcome::next;
}

struct Shape {
    const char* name;
    int m, n, k;
};
constexpr Shape kShapes[] = {{"m16n8k4", 16, 8, 4},   {"m16n8k8", 16, 8, 8}, {"m16n8k16", 16, 8, 16},
                             {"m16n8k32", 16, 8, 32}, {"m8n8k16", 8, 8, 16}, {"m8n8k4", 8, 8, 4}};

// mma.sync.aligned.shape.row.col{.satfinite}.d.a.b.c
void decode_multiply(Instruction& i, Modifiers& modifiers) {
    bool known = modifiers.take("sync") && modifiers.take("aligned");
    const Shape* shape = nullptr;
    for (const Shape& one : kShapes) {
        if (modifiers.take(one.name)) shape = &one;
    }
    known = known && shape && modifiers.take("row") && modifiers.take("col");
    i.flags = modifiers.take("satfinite");
    const Type d = modifiers.type(), a = modifiers.type(), b = modifiers.type(), c = modifiers.type();
    require(known && d == c && i.count == 4, i.opcode, " is not emulated");
    const bool halves = a == b && (a == Type::f16 || a == Type::bf16) && shape->m == 16 && (shape->k == 8 || shape->k == 16) &&
                        (d == Type::f32 || (d == Type::f16 && a == Type::f16));
    const bool singles = a == b && a == Type::tf32 && d == Type::f32 && shape->m == 16 && (shape->k == 4 || shape->k == 8);
    const bool doubles = a == b && a == Type::f64 && d == Type::f64 && shape->m == 8 && shape->k == 4;
    const auto byte = [](Type type) { return type == Type::s8 || type == Type::u8; };
    const bool bytes = byte(a) && byte(b) && d == Type::s32 && shape->k >= 16;
    require(halves || singles || doubles || bytes, i.opcode, " is not emulated");
    i.parameters[0] = shape->m;
    i.parameters[1] = shape->n;
    i.parameters[2] = shape->k;
    i.parameters[3] = static_cast<int32_t>(d);
    i.parameters[4] = static_cast<int32_t>(a) | static_cast<int32_t>(b) << 8;
    const int bits = std::max(bits_of(a), 32);
    const int counts[] = {registers_of(shape->m * shape->n, d), shape->m * shape->k * bits_of(a) / bits / kLanes,
                          shape->k * shape->n * bits_of(b) / bits / kLanes, registers_of(shape->m * shape->n, d)};
    for (int k = 0; k < 4; ++k) {
        require((i[k].kind == Operand::vector ? i[k].count : 1) == counts[k], i.opcode, ": operand ", k, " takes ", counts[k],
                " registers");
    }
    i.run = &multiply;
}

}  // namespace

void add_matrices(Decoders& decoders) {
    decoders["ldmatrix"] = &decode_matrices<true>;
    decoders["stmatrix"] = &decode_matrices<false>;
    decoders["movmatrix"] = &decode_transpose;
    decoders["mma"] = &decode_multiply;
}

}  // namespace emulator
