// Decode: a row of a product has the same bits whichever rows share the call, so that a reply does not depend on what
// else is served.
#include <stdexcept>

#include "temper/error.h"
#include "test/harness/harness.h"

namespace temper::test {
namespace {

Value row_of(const Value& x, int64_t row) {
  Shape shape(x.tensor.shape, x.tensor.shape + x.tensor.ndim);
  shape[0] = 1;
  Value y(x.tensor.dtype, shape, Role::in);
  y.bytes.assign(x.bytes.begin() + row * static_cast<std::ptrdiff_t>(y.bytes.size()),
                 x.bytes.begin() + (row + 1) * static_cast<std::ptrdiff_t>(y.bytes.size()));
  return y;
}

// Runs op on a backend; argument 0 afterwards.
Value run(const Backend& backend, const std::string& op, Values args) {
  std::vector<Tensor> storage(args.size());
  std::vector<Tensor*> tensors(args.size(), nullptr);
  for (size_t i = 0; i < args.size(); ++i) {
    if (!args[i].is_tensor()) continue;
    storage[i] = args[i].tensor;
    storage[i].data = backend.acquire(args[i].bytes.size());
    backend.put(storage[i].data, args[i].bytes.data(), args[i].bytes.size());
    tensors[i] = &storage[i];
  }
  const int status = settle(backend, invoke(*backend.ops, op, args, tensors));
  if (!status) backend.get(args[0].bytes.data(), storage[0].data, args[0].bytes.size());
  for (Tensor* t : tensors)
    if (t) backend.drop(t->data);
  if (status) throw std::runtime_error(op + ": " + last_error().message);
  return args[0];
}

}  // namespace

void check_few_rows(const Backend& backend, Tally& tally) {
  constexpr int64_t T = 8, N = 37, C = 2592, R = 3, E = 5;
  const std::vector<int32_t> expert{0, 0, 1, 1, 1, 3, 4, 4};  // of each row
  const Value none(nullptr), x = floats({T, C}, 1), dense = floats({N, C}, 2, 1, DType::bf16), A = floats({R, C}, 3),
                             B = floats({N, R}, 4), bias = floats({N}, 5);
  const Value q = bytes_u8({N, C}, 6, 1, 127), q_scales = positive({N, C / 32}, 7, 0.01, 0.02),
              w = bytes_u8({E, N, C / 32, 16}, 8), w_scales = bytes_u8({E, N, C / 32}, 9, 118, 123);
  Value q_bf16(DType::bf16, {N, C / 32}, Role::in);
  for (int64_t i = 0; i < q_scales.numel(); ++i) q_bf16.set(i, q_scales.at(i));
  const auto offsets = [&](const std::vector<int32_t>& of) {
    std::vector<int32_t> o(E + 1);
    for (int32_t e : of)
      for (int64_t i = e + 1; i <= E; ++i) ++o[static_cast<size_t>(i)];
    return values_i32({E + 1}, o);
  };
  const Value bias_e = floats({E, N}, 10), A_e = floats({E, R, C}, 11), B_e = floats({E, N, R}, 12);
  for (const Variant& variant : backend.variants) {
    variant.enter();
    for (int precision : {0, 1}) {
      const auto linear = [&](const Value& rows) {
        return run(backend, "linear_fwd",
                   {out({rows.tensor.shape[0], N}), out({rows.tensor.shape[0], R}), rows, dense, bias, A, B, 0.7, 0, 0,
                    precision});
      };
      const auto q8 = [&](const Value& rows) {
        return run(backend, "linear_q8_fwd",
                   {out({rows.tensor.shape[0], N}), none, rows, q, q_bf16, bias, none, none, 1, precision});
      };
      const auto grouped = [&](const Value& rows, const std::vector<int32_t>& of) {
        const int64_t P = rows.tensor.shape[0];
        return run(
            backend, "grouped_linear_fwd",
            {out({P, N}), out({P, R}), rows, none, offsets(of), w, w_scales, bias_e, A_e, B_e, 0.7, 0, precision});
      };
      const Value all[] = {linear(x), q8(x), grouped(x, expert)};
      for (int64_t t = 0; t < T; ++t) {
        const Value one = row_of(x, t),
                    alone[] = {linear(one), q8(one), grouped(one, {expert[static_cast<size_t>(t)]})};
        const char* names[] = {"linear_fwd", "linear_q8_fwd", "grouped_linear_fwd"};
        for (int i = 0; i < 3; ++i)
          report(tally, alone[i].bytes == row_of(all[i], t).bytes,
                 backend.name + " " + variant.name + ": " + names[i] + ", precision " + std::to_string(precision) +
                     ": row " + std::to_string(t) + " alone has other bits than among " + std::to_string(T));
      }
    }
  }
}

}  // namespace temper::test
