// The tile products of native/cuda: results have the same bits whichever tile size and number of stages a device leads
// to, and wherever packed weights lie. mma.sync is forced here: the emulated device has Hopper's kernels too and would
// choose those.
#include <stdexcept>

#include "cuda/matmul/matmul.h"
#include "temper/error.h"
#include "test/harness/harness.h"

namespace temper::test {
namespace {

// All arguments after the call, tensor `odd` placed `shift` bytes past an aligned address.
Values run(const Backend& backend, const std::string& op, Values args, size_t odd = SIZE_MAX, size_t shift = 0) {
  std::vector<Tensor> storage(args.size());
  std::vector<Tensor*> tensors(args.size(), nullptr);
  std::vector<void*> blocks;
  for (size_t i = 0; i < args.size(); ++i) {
    if (!args[i].is_tensor()) continue;
    const size_t by = i == odd ? shift : 0;
    blocks.push_back(backend.acquire(args[i].bytes.size() + by));
    storage[i] = args[i].tensor;
    storage[i].data = static_cast<char*>(blocks.back()) + by;
    backend.put(storage[i].data, args[i].bytes.data(), args[i].bytes.size());
    tensors[i] = &storage[i];
  }
  const int status = settle(backend, invoke(*backend.ops, op, args, tensors));
  for (size_t i = 0; !status && i < args.size(); ++i)
    if (tensors[i]) backend.get(args[i].bytes.data(), storage[i].data, args[i].bytes.size());
  for (void* p : blocks) backend.drop(p);
  if (status) throw std::runtime_error(op + ": " + last_error().message);
  return args;
}

bool same(const Values& a, const Values& b) {
  for (size_t i = 0; i < a.size(); ++i)
    if (a[i].bytes != b[i].bytes) return false;
  return true;
}

}  // namespace

void check_tiles(const Backend& emulated, Tally& tally) {
  emulated.variants[0].enter();
  gpu::Device& device = gpu::device();
  const gpu::Device as_opened = device;
  const gpu::MatmulChoice as_chosen = gpu::matmul_choice();
  gpu::set_matmul_choice(gpu::MatmulChoice::mma);  // the other kernels have sums of their own
  struct Setting {
    const char* name;
    int multiprocessors, shared;
  };
  const Setting settings[] = {{"large tiles, 227 KiB", 1, 227 * 1024},
                              {"large tiles, 99 KiB", 1, 99 * 1024},
                              {"small tiles", 1 << 20, 99 * 1024}};
  int64_t compared = 0;
  for (const Case& c : registry().cases) {
    if (c.bench_only || (kSanitized && c.slow) || !c.error.empty() || c.name.find("tiles") == std::string::npos ||
        c.op.find("linear") == std::string::npos || precision_of(c) != 1)
      continue;
    Values first;
    for (const Setting& s : settings) {
      if (kSanitized && &s == &settings[1]) continue;
      device.multiprocessors = s.multiprocessors;
      device.shared_per_block = s.shared;
      const Values got = run(emulated, c.op, c.args);
      if (first.empty()) {
        first = got;
        const auto& [want, tolerance] = expected_of(c, c.args);
        for (size_t i = 0; i < got.size(); ++i) {
          if (!got[i].is_tensor() || got[i].role == Role::in) continue;
          const std::string wrong = compare(got[i], want[i], tolerance[i]);
          report(tally, wrong.empty(),
                 "tiles: " + c.op + " [" + c.name + "]: output " + std::to_string(i) + ": " + wrong);
        }
      } else
        report(tally, same(got, first),
               "tiles: " + c.op + " [" + c.name + "]: " + s.name + ": other bits than with " + settings[0].name);
      ++compared;
    }
  }
  device = as_opened;
  gpu::set_matmul_choice(as_chosen);
  report(tally, compared >= (kSanitized ? 2 : 3) * 8,
         "tiles: only " + std::to_string(compared) + " runs of cases named for tiles");

  // More than few rows take: those have sums of their own, and want weights that are aligned.
  const int64_t T = 140;
  const Value none(nullptr), x = floats({T, 64}, 1), w = bytes_u8({1, 40, 2, 16}, 2),
                             scales = bytes_u8({1, 40, 2}, 3, 118, 123), q = bytes_u8({40, 64}, 4, 1, 127);
  const Value offsets = values_i32({2}, {0, 140}), dense = floats({40, 64}, 5, 1, DType::bf16);
  Value q_scales(DType::bf16, {40, 2}, Role::in);
  for (int64_t i = 0; i < q_scales.numel(); ++i) q_scales.set(i, 0.01 * static_cast<double>(i + 1));
  const struct {
    const char* op;
    Values args;
    size_t weight;
    size_t step;
  } odd[] = {
      {"grouped_linear_fwd", {out({T, 40}), none, x, none, offsets, w, scales, none, none, none, 1, 0, 1, 0}, 5, 1},
      {"linear_q8_fwd", {out({T, 40}), none, x, q, q_scales, none, none, none, 1, 1, 0}, 3, 8},
      {"linear_fwd", {out({T, 40}), none, x, dense, none, none, none, 1, 0, 0, 1, 0}, 3, 2},
      {"linear_fwd", {out({T, 40}), none, x, dense, none, none, none, 1, 0, 0, 1, 0}, 2, 4},
  };
  for (const auto& o : odd) {
    const bool equal = same(run(emulated, o.op, o.args), run(emulated, o.op, o.args, o.weight, o.step));
    report(tally, equal,
           std::string("tiles: ") + o.op + ": other bits where argument " + std::to_string(o.weight) + " lies " +
               std::to_string(o.step) + " bytes past an aligned address");
  }
}

}  // namespace temper::test
