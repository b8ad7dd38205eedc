// The case tables of products through Hopper's warpgroups: both layouts of B, low-rank terms, ragged edges; tiles that
// are overwritten too early would show. Attention's backward pass on a card that has none, as the usual emulated one
// takes them; its forward pass through them, which nothing takes unasked.
#include <functional>
#include <string>

#include "cuda/attention/attention.h"
#include "cuda/host/runtime.h"
#include "cuda/matmul/matmul.h"
#include "emulation/emulation.h"
#include "test/harness/harness.h"

namespace temper::test {
namespace {

// The gate_up product that activates its own result: one product less than one after the other, and their bits.
void check_activated(const Backend& backend, Tally& tally) {
  const int64_t E = 3, P = 200, X = 90, F = 72, C = 128, R = 16;
  const Value x = floats({X, C}, 1), rows = indices({P}, 2, X), offsets = values_i32({E + 1}, {0, 130, 130, 200}),
              w = bytes_u8({E, 2 * F, C / 32, 16}, 3), scales = bytes_u8({E, 2 * F, C / 32}, 4, 118, 124),
              bias = floats({E, 2 * F}, 5, 1, DType::bf16), none(nullptr);
  for (const bool pair : {false, true})
    for (const DType dtype : {DType::f32, DType::bf16}) {
      const Value A = pair ? floats({E, R, C}, 6) : none, B = pair ? floats({E, 2 * F, R}, 7) : none,
                  h = pair ? out({P, R}) : none;
      const auto one = [&](const Value& z) {
        const int64_t before = gpu::emulation::launches();
        Values after =
            call(backend, "grouped_linear_swiglu_fwd",
                 {out({P, F}, dtype), z, h, x, rows, offsets, w, scales, bias, A, B, 0.5, 1.702, 7, 0, 1, 0});
        return std::pair{std::move(after), gpu::emulation::launches() - before};
      };
      const int64_t before = gpu::emulation::launches();
      const Values parts = call(backend, "grouped_linear_fwd",
                                {out({P, 2 * F}), h, x, rows, offsets, w, scales, bias, A, B, 0.5, 0, 1, 0});
      const Value a = call(backend, "swiglu_fwd", {out({P, F}, dtype), parts[0], 1.702, 7})[0];
      const int64_t launches = gpu::emulation::launches() - before;
      for (const bool kept : {false, true}) {
        const auto [got, ran] = one(kept ? out({P, 2 * F}) : none);
        const std::string what = std::string("wgmma: activated by the product") + (pair ? ", a pair" : "") +
                                 (dtype == DType::bf16 ? ", bf16" : "") + (kept ? ", z kept" : "");
        report(tally, got[0].bytes == a.bytes, what + ": other bits");
        report(tally, !kept || got[1].bytes == parts[0].bytes, what + ": z has other bits");
        report(tally, !pair || got[2].bytes == parts[1].bytes, what + ": h has other bits");
        report(tally, ran == launches - 1,
               what + ": " + std::to_string(ran) + " launches, " + std::to_string(launches) + " one after the other");
      }
    }
}

// The forward pass through warpgroups has the bits of mma's, in whichever order threads start and copies come.
void check_attention_fwd(const Backend& backend, Tally& tally) {
  using gpu::attention::AttentionChoice;
  int64_t compared = 0;
  for (const Case& c : registry().cases) {
    if (c.op != "attention_fwd" || c.bench_only || c.slow || !c.error.empty() || c.args.back().number != 1) continue;
    gpu::attention::set_attention_choice(AttentionChoice::automatic);
    int64_t before = gpu::emulation::warpgroup_products();
    const Values want = call(backend, c.op, c.args);
    report(tally, gpu::emulation::warpgroup_products() == before, "attention_fwd: warpgroups that nobody asked for");
    gpu::attention::set_attention_choice(AttentionChoice::wgmma);
    for (const Variant& variant : backend.variants) {
      variant.enter();
      before = gpu::emulation::warpgroup_products();
      const Values got = call(backend, c.op, c.args);
      if (gpu::emulation::warpgroup_products() == before) break;  // few queries, or wide heads
      ++compared;
      for (size_t i : {0, 1})
        report(tally, got[i].bytes == want[i].bytes,
               "attention_fwd [" + c.name + "] by warpgroups, " + variant.name + ": output " + std::to_string(i) +
                   " has other bits");
    }
    backend.variants[0].enter();
  }
  gpu::attention::set_attention_choice(AttentionChoice::automatic);
  const int64_t orders = static_cast<int64_t>(backend.variants.size());  // a sanitizer sees one
  report(tally, compared >= 30 * orders, "attention_fwd: " + std::to_string(compared) + " runs by warpgroups");
}

}  // namespace

void check_wgmma(const Backend& emulated, Tally& tally) {
  gpu::set_matmul_choice(gpu::MatmulChoice::wgmma);
  Backend backend = emulated;
  backend.name = "emulation, wgmma";
  check_activated(backend, tally);
  const int64_t before = gpu::emulation::warpgroup_products();
  check_bf16_products(backend, tally);
  const int64_t products = gpu::emulation::warpgroup_products() - before;
  report(tally, products > 1000, "wgmma: " + std::to_string(products) + " warpgroup products were run");
  gpu::set_matmul_choice(gpu::MatmulChoice::automatic);

  // With warpgroups every case runs among all cases; here one is counted.
  const auto products_of = [&](const std::function<void()>& check) {
    const int64_t begin = gpu::emulation::warpgroup_products();
    check();
    return gpu::emulation::warpgroup_products() - begin;
  };
  gpu::device().warpgroups = false;
  backend.name = "emulation, no warpgroups";
  const int64_t without = products_of([&] { check_bf16_attention_bwd(backend, tally); });
  gpu::device().warpgroups = true;
  const int64_t with = products_of(
      [&] { check_cases(emulated, true, "attention_bwd eight heads to a kv head, window 50, pieces, bf16", tally); });
  report(tally, without == 0 && with > 1000,
         "attention_bwd: " + std::to_string(with) + " warpgroup products, " + std::to_string(without) + " without");
  check_attention_fwd(emulated, tally);
}

}  // namespace temper::test
