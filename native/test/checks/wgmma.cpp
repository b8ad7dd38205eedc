// The case tables through Hopper's warpgroup products: both layouts of B, low-rank terms, ragged edges; tiles that are
// overwritten too early would show.
#include <string>

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
}

}  // namespace temper::test
