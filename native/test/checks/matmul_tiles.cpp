// The tile products of native/cuda: results have the same bits whichever tile a device or its table leads to, with any
// number of stages, and wherever packed weights lie. mma.sync is forced here: the emulated device has Hopper's kernels
// too and would choose those.
#include <set>
#include <sstream>
#include <stdexcept>

#include "cuda/matmul/matmul.h"
#include "cuda/matmul/tile_table.h"
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

// What products came since the last call: kind, form and spread of each, and whether all of them took that tile.
bool all_took(const std::string& tile, std::set<std::string>& kinds) {
  std::istringstream lines(gpu::tiled_products());
  int64_t others = 0, count = 0;
  for (std::string line; std::getline(lines, line); ++count) {
    const size_t tab = line.find('\t');
    if (line.substr(tab + 1) != tile) ++others;
    kinds.insert(line.substr(0, line.find(" rows<=")));
  }
  return others == 0 && count > 0;
}

// The table: by class, for all, back to the rule, and what it refuses.
void check_table(const Backend& backend, Tally& tally) {
  const Value none(nullptr), x = floats({70, 64}, 1), w = floats({40, 64}, 2, 1, DType::bf16),
                             wide = floats({200, 64}, 2, 1, DType::bf16);
  for (const auto& [multiprocessors, tile] : {std::pair{1, "large"}, {1 << 20, "small"}}) {
    gpu::device().multiprocessors = multiprocessors;
    gpu::tiled_products();
    run(backend, "linear_fwd", {out({70, 200}), none, x, wide, none, none, none, 1, 0, 0, 1, 0});
    const std::string lines = gpu::tiled_products();
    report(tally, lines == std::string("bf16 forward dense rows<=128 columns<=256\t") + tile + '\n',
           "tiles: by the rule on " + std::to_string(multiprocessors) + " multiprocessors: " + lines);
  }
  const Values call{out({70, 40}), none, x, w, none, none, none, 1, 0, 0, 1, 0};
  const std::string mine = "bf16 forward dense rows<=128 columns<=64";
  const auto taken = [&] {
    gpu::tiled_products();
    run(backend, "linear_fwd", call);
    return std::string(gpu::tiled_products());
  };
  report(tally, taken() == mine + "\tsmall\n", "tiles: by the rule: " + taken());
  gpu::set_tile(mine.c_str(), "middle");
  report(tally, taken() == mine + "\tmiddle\n", "tiles: of the table: " + taken());
  report(tally, std::string(gpu::tiled_products()).empty(), "tiles: a product is told twice");
  gpu::set_tile(mine.c_str(), "");
  gpu::set_tile("bf16 forward dense rows<=64 columns<=64", "middle");
  gpu::set_tile("bf16 forward dense rows<=128 columns<=128", "middle");
  gpu::set_tile("bf16 forward experts rows<=128 columns<=64", "middle");
  gpu::set_tile("bf16 transposed dense rows<=128 columns<=64", "middle");
  gpu::set_tile("q8 forward dense rows<=128 columns<=64", "middle");
  report(tally, taken() == mine + "\tsmall\n", "tiles: another class's: " + taken());
  gpu::set_tile("*", "large");
  report(tally, taken() == mine + "\tlarge\n", "tiles: of all classes: " + taken());
  gpu::set_tile("*", "");
  report(tally, taken() == mine + "\tsmall\n", "tiles: the rule again: " + taken());
  for (const auto& [product, tile] : {std::pair{"", "small"},
                                      {"bf16", "small"},
                                      {"bf16 forward dense rows<=127 columns<=64", "small"},
                                      {"bf16 forward dense rows<=128 columns<=64 ", "small"},
                                      {"bf16 forward dense rows<=128 columns<=4294967296", "small"},
                                      {"f32 forward dense rows<=128 columns<=64", "small"},
                                      {"*", "tall"},
                                      {"bf16 forward dense rows<=128 columns<=64", "Small"}}) {
    std::string code;
    try {
      gpu::set_tile(product, tile);
    } catch (const Error& e) {
      code = e.code;
    }
    report(tally, code == "bad_argument", std::string("tiles: \"") + product + "\" takes \"" + tile + '"');
  }
}

}  // namespace

void check_tiles(const Backend& emulated, Tally& tally) {
  emulated.variants[0].enter();
  gpu::Device& device = gpu::device();
  const gpu::Device as_opened = device;
  const gpu::MatmulChoice as_chosen = gpu::matmul_choice();
  gpu::set_matmul_choice(gpu::MatmulChoice::mma);  // the other kernels have sums of their own
  struct Setting {
    const char *name, *tile;
    int shared;
  };
  const Setting settings[] = {{"large tiles, 227 KiB", "large", 227 * 1024},
                              {"large tiles, 99 KiB", "large", 99 * 1024},
                              {"small tiles", "small", 99 * 1024},
                              {"middle tiles", "middle", 99 * 1024}};
  std::set<std::string> kinds;
  int64_t compared = 0;
  for (const Case& c : registry().cases) {
    if (c.bench_only || (kSanitized && c.slow) || !c.error.empty() || c.name.find("tiles") == std::string::npos ||
        c.op.find("linear") == std::string::npos || precision_of(c) != 1)
      continue;
    const auto named = [&](const char* text) { return c.name.find(text) != std::string::npos; };
    if (named("a tail of")) continue;  // of the register tiles, which are not taken here
    // Fewer stages of the same tile: of every kind a product whose k is more blocks than there are stages.
    const bool in_stages = !kSanitized && (named("128×192") || named("k in parts"));
    Values first;
    for (const Setting& s : settings) {
      if (&s == &settings[1] && !in_stages) continue;
      device.shared_per_block = s.shared;
      gpu::set_tile("*", s.tile);
      gpu::tiled_products();
      const Values got = run(emulated, c.op, c.args);
      report(tally, all_took(s.tile, kinds), "tiles: " + c.op + " [" + c.name + "]: not all " + s.name);
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
  gpu::set_tile("*", "");
  for (const char* kind : {"bf16 forward dense", "bf16 transposed dense", "bf16 gradient dense", "bf16 forward experts",
                           "bf16 transposed experts", "bf16 gradient expert-sums", "mxfp4 forward experts",
                           "mxfp4 transposed experts", "q8 forward dense"})
    report(tally, kinds.erase(kind) == 1, std::string("tiles: no case of ") + kind);
  for (const std::string& kind : kinds) report(tally, false, "tiles: a kind that is not looked for: " + kind);
  check_table(emulated, tally);
  device = as_opened;
  gpu::set_matmul_choice(as_chosen);
  report(tally, compared >= (kSanitized ? 3 : 4) * 8,
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
      {"grouped_linear_fwd", {out({T, 40}), none, x, none, offsets, w, scales, none, none, none, 1, 0, 1, 0}, 5, 8},
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
