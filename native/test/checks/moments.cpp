// AdamW's moments in 8 bits: the same bits on every path of the CPU, on every CPU and on a GPU; a first step is adamw's
// own; what NaN and infinities do.
#include <cmath>
#include <cstring>
#include <limits>

#include "temper/moment_codes.h"
#include "test/harness/harness.h"

namespace temper::test {
namespace {

constexpr int64_t kElements = 2 * 2048 + 3 * 256 + 77;  // whole blocks of a GPU's threads and more, and a tail

// Gradients of all sizes, zeros among them, and in the middle a block of nothing else.
Value gradients(uint64_t seed) {
  Value g(DType::f32, {kElements}, Role::in);
  for (int64_t i = 0; i < kElements; ++i) {
    const uint64_t at = static_cast<uint64_t>(i);
    const int exponent = static_cast<int>(random_bits(seed, at) % 40) - 30 - (i / 256 % 4 == 3 ? 110 : 0);
    const bool zero = random_bits(seed + 1, at) % 16 == 0 || i / 256 == 5;
    g.set(i, zero ? 0 : std::ldexp(2 * random_unit(seed + 2, at) - 1, exponent));
  }
  return g;
}
Value zeros(DType dtype, int64_t n) { return Value(dtype, {n}, Role::update); }

struct State {
  Value p = update(floats({kElements}, 1)), m = zeros(DType::u8, kElements), v = zeros(DType::u8, kElements),
        m_scales = zeros(DType::f32, (kElements + 255) / 256), v_scales = zeros(DType::f32, (kElements + 255) / 256);
};
void step(const Backend& backend, State& s, const Value& g, int count) {
  const Values after =
      call(backend, "adamw_8bit", {s.p, s.m, s.v, s.m_scales, s.v_scales, g, 1e-2, 0.9, 0.75, 1e-8, 0.25, count, 0.5});
  s = {after[0], after[1], after[2], after[3], after[4]};
}
uint64_t digest(const State& s) {  // FNV-1a
  uint64_t h = 0xcbf29ce484222325ull;
  for (const Value* x : {&s.p, &s.m, &s.v, &s.m_scales, &s.v_scales})
    for (const uint8_t byte : x->bytes) h = (h ^ byte) * 0x100000001b3ull;
  return h;
}
bool same(const Value& a, const Value& b) { return a.bytes == b.bytes; }

// Of three steps, wherever they run.
constexpr uint64_t kDigest = 9839463852432811945ull;

}  // namespace

void check_moments(const Backend& backend, Tally& tally) {
  for (const Variant& variant : backend.variants) {
    variant.enter();
    const std::string where = "moments " + backend.name + " " + variant.name + ": ";
    State s;
    step(backend, s, gradients(10), 1);
    const Values plain = call(backend, "adamw",
                              {State().p, zeros(DType::f32, kElements), zeros(DType::f32, kElements), gradients(10),
                               1e-2, 0.9, 0.75, 1e-8, 0.25, 1, 0.5});
    report(tally, same(s.p, plain[0]), where + "a first step is not adamw's");
    for (int count : {2, 3}) step(backend, s, gradients(10 * static_cast<uint64_t>(count)), count);
    report(tally, digest(s) == kDigest, where + "other bits: digest " + std::to_string(digest(s)));

    // What is not a number spoils its own element in its step, as adamw's does, and its block's moments from then on.
    Value wild = gradients(10);
    wild.set(700, std::numeric_limits<double>::quiet_NaN());
    wild.set(1900, std::numeric_limits<double>::infinity());
    wild.set(kElements - 1, -std::numeric_limits<double>::infinity());
    State w;
    step(backend, w, wild, 1);
    const Values wild_plain = call(backend, "adamw",
                                   {State().p, zeros(DType::f32, kElements), zeros(DType::f32, kElements), wild, 1e-2,
                                    0.9, 0.75, 1e-8, 0.25, 1, 0.5});
    int64_t wrong = 0, spoilt = 0;
    for (int64_t i = 0; i < kElements; ++i) {
      const double a = w.p.at(i), b = wild_plain[0].at(i);
      wrong += !(a == b || (std::isnan(a) && std::isnan(b)));
    }
    for (int64_t block = 0; block < w.m_scales.numel(); ++block)
      spoilt += !std::isfinite(w.m_scales.at(block)) && !std::isfinite(w.v_scales.at(block));
    report(tally, wrong == 0 && std::isnan(w.p.at(700)), where + "parameters after NaN are not adamw's");
    report(tally, spoilt == 3, where + std::to_string(spoilt) + " blocks are spoilt, wanted 3");
    report(tally, std::isnan(w.m_scales.at(700 / 256)) && std::isinf(w.m_scales.at(1900 / 256)),
           where + "a block's scale is not its NaN or infinity");
    step(backend, w, gradients(20), 2);
    int64_t unlike = 0;
    for (int64_t i = 0; i < kElements; ++i) {
      const int64_t block = i / 256;
      const bool in = block == 700 / 256 || block == 1900 / 256 || block == (kElements - 1) / 256;
      unlike += std::isnan(w.p.at(i)) != in;
    }
    report(tally, unlike == 0, where + std::to_string(unlike) + " elements are NaN where none are, or the reverse");
  }
}

}  // namespace temper::test
