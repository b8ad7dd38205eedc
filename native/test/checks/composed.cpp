// The ops that are several others in one give the bits of those one after another, at any number of rows; and what a
// device has a kernel for is one launch.
#include "emulation/emulation.h"
#include "test/harness/harness.h"

namespace temper::test {
namespace {

class Composed {
 public:
  Composed(const Backend& backend, Tally& tally) : backend_(backend), tally_(tally) {}

  // T tokens of H and Hkv heads of Dh, D wide; `launches` of the one op on the emulated device, 0: as many as it likes
  void qkv(int64_t T, int64_t H, int64_t Hkv, int64_t Dh, int64_t D, DType keys, bool q8, int precision, int launches) {
    const int64_t S = T + 5, N = H * Dh, M = Hkv * Dh;
    std::vector<int32_t> places;
    for (int64_t t = 0; t < T; ++t) places.push_back(static_cast<int32_t>(S - 1 - t));
    const Value x = floats({T, D}, 1), norm = floats({D}, 2, 1, DType::bf16), cosines = floats({T, Dh / 2}, 3),
                sines = floats({T, Dh / 2}, 4), rows = values_i32({T}, places);
    const Value k = update(floats({S, Hkv, Dh}, 5, 1, keys)), v = update(floats({S, Hkv, Dh}, 6, 1, keys));
    const int64_t outputs[] = {N, M, M};
    std::vector<Value> w, scales, bias;
    for (uint64_t i = 0; i < 3; ++i) {
      w.push_back(q8 ? bytes_u8({outputs[i], D}, 10 + i) : floats({outputs[i], D}, 10 + i, 1, DType::bf16));
      scales.push_back(q8 ? smooth({outputs[i], D / 32}, 20 + i, 0.01, DType::bf16) : Value(nullptr));
      bias.push_back(floats({outputs[i]}, 30 + i, 1, i == 1 ? DType::f32 : DType::bf16));
    }
    const Values one = counted("linear_qkv_fwd", launches,
                               {out({T, H, Dh}), k, v, x, norm, 1e-5, w[0], scales[0], bias[0], w[1], scales[1],
                                bias[1], w[2], scales[2], bias[2], cosines, sines, rows, precision});
    const Value xn = run("rmsnorm_fwd", {out({T, D}), out({T}), nullptr, x, nullptr, norm, 1e-5})[0];
    const auto product = [&](size_t i) {
      return q8 ? run("linear_q8_fwd", {out({T, outputs[i]}), nullptr, xn, w[i], scales[i], bias[i], nullptr, nullptr,
                                        0, precision, 1})[0]
                : run("linear_fwd",
                      {out({T, outputs[i]}), nullptr, xn, w[i], bias[i], nullptr, nullptr, 0, 0, 0, precision, 1})[0];
    };
    const auto turned = [&](size_t i, int64_t heads) {
      Value y = product(i);
      y.role = Role::update;
      return run("rope", {y, cosines, sines, heads, 1})[0];
    };
    const auto placed = [&](const Value& cache, Value y) {
      y.tensor.ndim = 3, y.tensor.shape[1] = Hkv, y.tensor.shape[2] = Dh;
      return run("scatter_rows", {cache, y, rows})[0];
    };
    same("linear_qkv_fwd", T, "q", one[0], turned(0, H));
    same("linear_qkv_fwd", T, "k", one[1], placed(k, turned(1, Hkv)));
    same("linear_qkv_fwd", T, "v", one[2], placed(v, product(2)));
  }

  void router(int64_t T, int64_t D, int64_t E, int64_t K, DType wf, int precision, int launches) {
    const Value x = floats({T, D}, 1), residual = floats({T, D}, 2), norm = floats({D}, 3),
                w = floats({E, D}, 4, 1, wf), bias = floats({E}, 5, 1, DType::bf16), integers = out({T, K}, DType::i32),
                pairs = out({T * K}, DType::i32), offsets = out({E + 1}, DType::i32);
    const Values one = counted("linear_router_fwd", launches,
                               {out({T, D}), out({T, D}), out({T, K}), integers, offsets, pairs, integers, out({T * K}),
                                x, residual, norm, 1e-5, w, bias, precision});
    const Values normed = run("rmsnorm_fwd", {out({T, D}), out({T}), out({T, D}), x, residual, norm, 1e-5});
    const Value logits =
        run("linear_fwd", {out({T, E}), nullptr, normed[0], w, bias, nullptr, nullptr, 0, 0, 0, precision, 1})[0];
    const Values chosen = run("topk_fwd", {out({T, K}), integers, logits});
    const Values plan = run("moe_plan", {offsets, pairs, integers, out({T * K}), chosen[1], chosen[0]});
    const Value want[] = {normed[2], normed[0], chosen[0], chosen[1], plan[0], plan[1], plan[2], plan[3]};
    const char* const names[] = {"sum", "xn", "weights", "ids", "offsets", "row_token", "slot_row", "row_weight"};
    for (size_t i = 0; i < 8; ++i) same("linear_router_fwd", T, names[i], one[i], want[i]);
  }

  void swiglu(const std::vector<int32_t>& offsets, int64_t X, int64_t F, int64_t C, int layout, int precision,
              int launches) {
    const int64_t E = static_cast<int64_t>(offsets.size()) - 1, P = offsets.back();
    const Value x = floats({X, C}, 1), rows = indices({P}, 2, X), ends = values_i32({E + 1}, offsets),
                w = layout ? floats({E, 2 * F, C}, 3, 1, DType::bf16) : bytes_u8({E, 2 * F, C / 32, 16}, 3),
                scales = layout ? Value(nullptr) : bytes_u8({E, 2 * F, C / 32}, 4, 110, 131),
                bias = floats({E, 2 * F}, 5, 1, DType::bf16);
    const Values one = counted("grouped_linear_swiglu_fwd", launches,
                               {out({P, F}), nullptr, nullptr, x, rows, ends, w, scales, bias, nullptr, nullptr, 0,
                                1.702, 7, layout, precision, 1});
    const Value z = run("grouped_linear_fwd", {out({P, 2 * F}), nullptr, x, rows, ends, w, scales, bias, nullptr,
                                               nullptr, 0, layout, precision, 1})[0];
    same("grouped_linear_swiglu_fwd", P, "a", one[0], run("swiglu_fwd", {out({P, F}), z, 1.702, 7})[0]);
  }

  void combine(const std::vector<int32_t>& offsets, int64_t K, int64_t D, int64_t C, int layout, int precision,
               int launches) {
    const int64_t E = static_cast<int64_t>(offsets.size()) - 1, P = offsets.back(), T = P / K;
    std::vector<int32_t> places;
    for (int64_t i = 0; i < P; ++i) places.push_back(static_cast<int32_t>(P - 1 - i));
    const Value x = floats({P, C}, 1), ends = values_i32({E + 1}, offsets), out_before = update(floats({T, D}, 2)),
                w = layout ? floats({E, D, C}, 3, 1, DType::bf16) : bytes_u8({E, D, C / 32, 16}, 3),
                scales = layout ? Value(nullptr) : bytes_u8({E, D, C / 32}, 4, 110, 131),
                bias = floats({E, D}, 5, 1, DType::bf16), weights = positive({T, K}, 6, 0, 1),
                rows = values_i32({T, K}, places);
    const Values one = counted("grouped_linear_combine_fwd", launches,
                               {out_before, x, ends, w, scales, bias, weights, rows, layout, precision});
    const Value y = run("grouped_linear_fwd", {out({P, D}), nullptr, x, nullptr, ends, w, scales, bias, nullptr,
                                               nullptr, 0, layout, precision, 1})[0];
    same("grouped_linear_combine_fwd", T, "out", one[0], run("moe_combine", {out_before, y, weights, rows, 1})[0]);
  }

 private:
  Values run(const std::string& op, const Values& args) { return call(backend_, op, args); }
  Values counted(const std::string& op, int launches, const Values& args) {
    const int64_t before = gpu::emulation::launches();
    const Values after = run(op, args);
    if (const int64_t ran = gpu::emulation::launches() - before; ran > 0 && launches)
      report(tally_, ran == launches,
             op + ": " + std::to_string(ran) + " launches, wanted " + std::to_string(launches));
    return after;
  }
  void same(const std::string& op, int64_t rows, const char* what, const Value& got, const Value& want) {
    report(tally_, got.bytes == want.bytes,
           backend_.name + ": " + op + " of " + std::to_string(rows) + " rows: " + what +
               " has other bits than of the ops one after another");
  }
  const Backend& backend_;
  Tally& tally_;
};

}  // namespace

void check_composed(const Backend& backend, Tally& tally) {
  for (const Variant& variant : backend.variants) {
    variant.enter();
    Composed c(backend, tally);
    for (const int64_t T : {1, 8, 11, 32}) {
      c.qkv(T, 4, 1, 64, 352, DType::bf16, false, 1, 1);
      c.qkv(T, 3, 2, 16, 96, DType::f32, true, 1, 1);
      c.router(T, 352, 32, 4, DType::bf16, 1, 1);
    }
    c.router(3, 64, 100, 4, DType::bf16, 1, 1);
    c.swiglu({0, 1, 1, 2, 3, 4}, 1, 40, 352, 0, 1, 1);
    c.swiglu({0, 9, 9, 40}, 11, 24, 96, 0, 1, 1);
    c.swiglu({0, 3, 5}, 3, 8, 64, 1, 1, 1);
    c.combine({0, 1, 1, 2, 3, 4}, 4, 40, 352, 0, 1, 1);
    c.combine({0, 9, 9, 16}, 2, 33, 96, 0, 1, 1);
    c.combine({0, 1, 4}, 4, 16, 64, 1, 1, 1);
    // what no kernel takes
    c.combine({0, 9, 40}, 4, 33, 96, 0, 1, 0);
    c.qkv(2, 2, 1, 20, 40, DType::f32, false, 1, 0);
    c.qkv(33, 2, 1, 16, 32, DType::f32, false, 1, 0);
    c.qkv(2, 2, 1, 16, 32, DType::bf16, false, 0, 0);
    c.router(3, 40, 6, 2, DType::f32, 1, 0);
    c.router(2, 64, 20, 4, DType::bf16, 0, 0);
    c.swiglu({0, 2, 3}, 2, 9, 32, 0, 0, 0);
  }
}

}  // namespace temper::test
