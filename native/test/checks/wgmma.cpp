// The case tables of products through Hopper's warpgroups: both layouts of B, low-rank terms, ragged edges; tiles that
// are overwritten too early would show. And attention's backward pass on a card that has none, as the usual emulated
// one takes them.
#include <string>

#include "cuda/host/runtime.h"
#include "cuda/matmul/matmul.h"
#include "emulation/emulation.h"
#include "test/harness/harness.h"

namespace temper::test {

void check_wgmma(const Backend& emulated, Tally& tally) {
  gpu::set_matmul_choice(gpu::MatmulChoice::wgmma);
  Backend backend = emulated;
  backend.name = "emulation, wgmma";
  const int64_t before = gpu::emulation::warpgroup_products();
  check_bf16_products(backend, tally);
  const int64_t products = gpu::emulation::warpgroup_products() - before;
  report(tally, products > 1000, "wgmma: " + std::to_string(products) + " warpgroup products were run");
  gpu::set_matmul_choice(gpu::MatmulChoice::automatic);

  const auto attention_products = [&](int major, const std::string& name) {
    gpu::device().major = major;
    backend.name = name;
    const int64_t begin = gpu::emulation::warpgroup_products();
    check_bf16_attention_bwd(backend, tally);
    return gpu::emulation::warpgroup_products() - begin;
  };
  const int major = gpu::device().major;
  const int64_t without = attention_products(8, "emulation, no warpgroups"),
                with = attention_products(major, "emulation");
  report(tally, without == 0 && with > 10000,
         "attention_bwd: " + std::to_string(with) + " warpgroup products, " + std::to_string(without) + " without");
}

}  // namespace temper::test
