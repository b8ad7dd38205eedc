// What no case table shows: exp against the C library over its whole range, and what random numbers owe (ranges,
// moments, independence of length).
#include <cmath>
#include <cstring>
#include "cpu/host/number.h"
#include "cpu/ops.h"
#include "test/harness/harness.h"

namespace temper::test {
namespace {

void check_exp(Tally& tally) {
  double worst = 0;
  float where = 0;
  for (int64_t i = 0; i <= 2000000; ++i) {
    const float x = static_cast<float>(-104 + 192.7 * static_cast<double>(i) / 2000000);
    const double want = std::exp(static_cast<double>(x)), got = cpu::exp_approx(x);
    const double ulp = want < 0x1p-126 ? 0x1p-149 : std::ldexp(1.0, std::ilogb(want) - 23);
    if (!(std::fabs(got - want) / ulp <= worst)) {
      worst = std::fabs(got - want) / ulp;
      where = x;
    }
  }
  report(tally, worst <= 1.5, "exp: " + std::to_string(worst) + " units in the last place at " + std::to_string(where));
  report(tally,
         cpu::exp_approx(0.0f) == 1 && cpu::exp_approx(-INFINITY) == 0 && cpu::exp_approx(-200.0f) == 0 &&
             cpu::exp_approx(INFINITY) == INFINITY && cpu::exp_approx(100.0f) == INFINITY,
         "exp: wrong at 0 or beyond the range");
  report(tally, std::isnan(cpu::exp_approx(NAN)) && std::isnan(cpu::exp_approx(-NAN)), "exp: NaN is lost");
}

Value generate(const std::string& op, DType dtype, int64_t n, const std::vector<double>& numbers) {
  Values args = {out({n}, dtype)};
  for (double x : numbers) args.push_back(x);
  Tensor t = args[0].tensor;
  t.data = args[0].bytes.data();
  std::vector<Tensor*> tensors(args.size(), nullptr);
  tensors[0] = &t;
  if (invoke(cpu::table(), op, args, tensors) != 0) throw last_error();
  return args[0];
}

// Mean and variance within 5 standard errors of a sample of n; kurtosis: fourth central moment over variance².
void check_moments(Tally& tally, const std::string& name, const Value& x, double mean, double variance,
                   double kurtosis) {
  const double n = static_cast<double>(x.numel());
  double sum = 0, squares = 0;
  for (int64_t i = 0; i < x.numel(); ++i) sum += x.at(i);
  for (int64_t i = 0; i < x.numel(); ++i) squares += (x.at(i) - mean) * (x.at(i) - mean);
  report(tally, std::fabs(sum / n - mean) <= 5 * std::sqrt(variance / n),
         name + ": mean " + std::to_string(sum / n) + ", wanted " + std::to_string(mean));
  report(tally, std::fabs(squares / n - variance) <= 5 * variance * std::sqrt((kurtosis - 1) / n) + variance * 0x1p-16,
         name + ": variance " + std::to_string(squares / n) + ", wanted " + std::to_string(variance));
}

void check_random(Tally& tally) {
  constexpr int64_t n = 400000;
  for (double seed : {0.0, 1.0, 123456789.0}) {
    const Value u = generate("random_uniform", DType::f32, n, {seed, -0.5, 1.5}),
                g = generate("random_normal", DType::f32, n, {seed, 0.02}),
                b = generate("random_bytes", DType::u8, n, {seed, 118, 123});
    check_moments(tally, "random_uniform", u, 0.5, 1.0 / 3, 1.8);
    check_moments(tally, "random_normal", g, 0, 0.0004, 3);
    check_moments(tally, "random_bytes", b, 120.5, 35.0 / 12, 1.73);
    bool inside = true;
    int64_t seen[256] = {}, beyond2 = 0;
    for (int64_t i = 0; i < n; ++i) {
      inside = inside && u.at(i) >= -0.5 && u.at(i) < 1.5;
      ++seen[static_cast<int>(b.at(i))];
      beyond2 += std::fabs(g.at(i)) > 0.04;
    }
    for (int v = 0; v < 256; ++v) inside = inside && (v < 118 || v > 123 ? seen[v] == 0 : seen[v] > n / 7);
    report(tally, inside, "random: a value outside its range, or one that never comes");
    report(tally, std::fabs(static_cast<double>(beyond2) / n - 0.0455) < 0.002,
           "random_normal: not a bell beyond two deviations");
    const Value shorter = generate("random_normal", DType::f32, 1001, {seed, 0.02}),
                other = generate("random_normal", DType::f32, 1001, {seed + 1, 0.02});
    report(tally, std::memcmp(shorter.bytes.data(), g.bytes.data(), shorter.bytes.size()) == 0,
           "random_normal: an element depends on the length");
    int same = 0;
    for (int64_t i = 0; i < 1001; ++i) same += shorter.at(i) == other.at(i);
    report(tally, same < 3, "random_normal: near seeds give the same numbers");
  }
  const Value narrow = generate("random_uniform", DType::bf16, 20000, {7, 0.99, 1});
  bool below = true;
  for (int64_t i = 0; i < narrow.numel(); ++i) below = below && narrow.at(i) < 1;
  report(tally, below, "random_uniform: bf16 rounding reaches the open end");
}

}  // namespace

void check_numeric(Tally& tally) {
  check_exp(tally);
  check_random(tally);
}

}  // namespace temper::test
