#include "decode.hpp"

#include <algorithm>

namespace emulator {

namespace {

struct TypeFacts {
    const char* name;
    Type type;
    int bits;
    bool is_signed, is_float;
};

constexpr TypeFacts kTypes[] = {
    {"b8", Type::b8, 8, false, false},    {"b16", Type::b16, 16, false, false},     {"b32", Type::b32, 32, false, false},
    {"b64", Type::b64, 64, false, false}, {"b128", Type::b128, 128, false, false},  {"u8", Type::u8, 8, false, false},
    {"u16", Type::u16, 16, false, false}, {"u32", Type::u32, 32, false, false},     {"u64", Type::u64, 64, false, false},
    {"s8", Type::s8, 8, true, false},     {"s16", Type::s16, 16, true, false},      {"s32", Type::s32, 32, true, false},
    {"s64", Type::s64, 64, true, false},  {"f16", Type::f16, 16, true, true},       {"f16x2", Type::f16x2, 32, true, true},
    {"bf16", Type::bf16, 16, true, true}, {"bf16x2", Type::bf16x2, 32, true, true}, {"tf32", Type::tf32, 32, true, true},
    {"f32", Type::f32, 32, true, true},   {"f64", Type::f64, 64, true, true},       {"pred", Type::pred, 1, false, false},
    {"e4m3", Type::e4m3, 8, true, true},  {"e5m2", Type::e5m2, 8, true, true},
};

const TypeFacts& facts(Type type) {
    for (const TypeFacts& one : kTypes) {
        if (one.type == type) return one;
    }
    fail("a type is missing");
}

Decoders all_decoders() {
    Decoders decoders;
    add_integers(decoders);
    add_bits(decoders);
    add_floats(decoders);
    add_comparisons(decoders);
    add_conversions(decoders);
    add_moves(decoders);
    add_accesses(decoders);
    add_atomics(decoders);
    add_flow(decoders);
    add_barriers(decoders);
    add_warp_operations(decoders);
    add_copies(decoders);
    add_mbarriers(decoders);
    add_matrices(decoders);
    add_products(decoders);
    return decoders;
}

}  // namespace

int bits_of(Type type) { return facts(type).bits; }
bool is_signed(Type type) { return facts(type).is_signed; }
bool is_float(Type type) { return facts(type).is_float; }

Modifiers::Modifiers(const std::string& opcode) {
    for (size_t from = 0; from <= opcode.size();) {
        const size_t dot = std::min(opcode.find('.', from), opcode.size());
        (from == 0 ? name_ : rest_.emplace_back()) = opcode.substr(from, dot - from);
        from = dot + 1;
    }
}

bool Modifiers::take(const std::string& modifier) {
    const auto found = std::find(rest_.begin(), rest_.end(), modifier);
    if (found == rest_.end()) return false;
    rest_.erase(found);
    return true;
}

bool Modifiers::next(const std::string& modifier) {
    if (rest_.empty() || rest_.front() != modifier) return false;
    rest_.erase(rest_.begin());
    return true;
}

int Modifiers::take_one(std::initializer_list<const char*> modifiers, int otherwise) {
    int number = 0;
    for (const char* modifier : modifiers) {
        if (take(modifier)) return number;
        ++number;
    }
    return otherwise;
}

Type Modifiers::type() {
    if (rest_.empty()) return Type::none;
    for (const TypeFacts& one : kTypes) {
        if (next(one.name)) return one.type;
    }
    return Type::none;
}

std::string Modifiers::take_starting(const std::string& start) {
    for (auto found = rest_.begin(); found != rest_.end(); ++found) {
        if (found->compare(0, start.size(), start) == 0) {
            const std::string text = *found;
            rest_.erase(found);
            return text;
        }
    }
    return "";
}

bool Modifiers::of_floats() const {
    return !rest_.empty() && std::any_of(std::begin(kTypes), std::end(kTypes),
                                         [&](const TypeFacts& one) { return one.is_float && rest_.back() == one.name; });
}

Rounding Modifiers::rounding(Rounding otherwise) {
    constexpr Rounding kByNumber[] = {Rounding::nearest, Rounding::zero, Rounding::down, Rounding::up, Rounding::away};
    const int found = take_one({"rn", "rz", "rm", "rp", "rna"});
    return found < 0 ? otherwise : kByNumber[found];
}

Space Modifiers::space() {
    constexpr Space kByNumber[] = {Space::global, Space::global, Space::shared,    Space::shared,
                                   Space::shared, Space::local,  Space::parameter, Space::parameter};
    const int found =
        take_one({"global", "const", "shared", "shared::cta", "shared::cluster", "local", "param", "param::entry"});
    return found < 0 ? Space::generic : kByNumber[found];
}

bool Modifiers::take_cache_hints() {
    while (take_one({"ca", "cg", "cs", "lu", "cv", "wb", "wt", "nc", "L2::64B", "L2::128B", "L2::256B"}) >= 0 ||
           !take_starting("L1::").empty() || !take_starting("L2::evict").empty()) {
    }
    return take("L2::cache_hint");
}

void Modifiers::finish() const {
    if (rest_.empty()) return;
    std::string text = name_ + ": modifiers that are not emulated:";
    for (const std::string& one : rest_) text += " ." + one;
    throw Fault(text);
}

void require_operands(const Instruction& instruction, int count) {
    require(instruction.count == count, instruction.opcode, " with ", instruction.count, " operands");
    for (int i = 0; i < count; ++i) {
        require_kind(instruction, i, {Operand::register_, Operand::constant, Operand::sink});
    }
}

void require_kind(const Instruction& instruction, int operand, std::initializer_list<Operand::Kind> kinds) {
    require(operand < instruction.count, instruction.opcode, " with ", instruction.count, " operands");
    require(std::find(kinds.begin(), kinds.end(), instruction[operand].kind) != kinds.end(), instruction.opcode, ": operand ",
            operand, " is of a kind that is not emulated");
}

void decode(Kernel& kernel) {
    static const Decoders decoders = all_decoders();
    for (Instruction& instruction : kernel.instructions) {
        try {
            Modifiers modifiers(instruction.opcode);
            auto found = modifiers.of_floats() ? decoders.find(modifiers.name() + ".f") : decoders.end();
            if (found == decoders.end()) found = decoders.find(modifiers.name());
            require(found != decoders.end(), "the instruction ", modifiers.name(), " is not emulated");
            found->second(instruction, modifiers);
            modifiers.finish();
            require(instruction.run != nullptr, instruction.opcode, " is not emulated for this type");
        } catch (const Fault& fault) {
            instruction.run = nullptr;
            instruction.refusal = fault.what();
        }
    }
}

}  // namespace emulator
