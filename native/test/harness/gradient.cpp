// grad: the reference backward against differences of the reference forward. The forward computes in double and rounds
// its outputs to f32; the tolerance is that rounding carried through the difference quotient, plus what the two
// quotients of different order disagree by.
#include <cmath>
#include <cstdio>
#include <exception>
#include "test/harness/harness.h"

namespace temper::test {
namespace {

constexpr int64_t kElements = 24;  // of each input

struct Loss {
  double value, magnitude;
};

Loss loss_of(const GradCase& g, Values args, const Values& upstream) {
  const Values after = run_reference(g.forward, std::move(args));
  Loss loss{0, 0};
  for (size_t o = 0; o < g.outputs.size(); ++o) {
    const Value& y = after[static_cast<size_t>(g.outputs[o])];
    for (int64_t i = 0; i < y.numel(); ++i) {
      loss.value += upstream[o].at(i) * y.at(i);
      loss.magnitude += std::fabs(upstream[o].at(i) * y.at(i));
    }
  }
  return loss;
}

void check_gradient(const GradCase& g, Tally& tally) {
  const Values after = run_reference(g.forward, g.args);
  Values upstream;
  for (size_t o = 0; o < g.outputs.size(); ++o) {
    const Tensor& t = after[static_cast<size_t>(g.outputs[o])].tensor;
    upstream.push_back(smooth(Shape(t.shape, t.shape + t.ndim), 977 + o));
  }
  const Values backward = run_reference(g.op, g.backward(after, upstream));
  for (const GradPair& pair : g.pairs) {
    const Value& x = g.args[static_cast<size_t>(pair.forward_input)];
    const Value& dx = backward[static_cast<size_t>(pair.backward_output)];
    for (int64_t k = 0; k < kElements && k < x.numel(); ++k) {
      const int64_t i =
          x.numel() <= kElements
              ? k
              : static_cast<int64_t>(random_bits(31, static_cast<uint64_t>(k)) % static_cast<uint64_t>(x.numel()));
      const double step = 0x1p-5;
      double difference[2], magnitude = 0, width[2];
      for (int wide = 0; wide < 2; ++wide) {
        Values up = g.args, down = g.args;
        up[static_cast<size_t>(pair.forward_input)].set(i, x.at(i) + step * (1 + wide));
        down[static_cast<size_t>(pair.forward_input)].set(i, x.at(i) - step * (1 + wide));
        // as f32 holds it
        width[wide] =
            up[static_cast<size_t>(pair.forward_input)].at(i) - down[static_cast<size_t>(pair.forward_input)].at(i);
        const Loss plus = loss_of(g, up, upstream), minus = loss_of(g, down, upstream);
        difference[wide] = (plus.value - minus.value) / width[wide];
        magnitude = std::fmax(magnitude, std::fmax(plus.magnitude, minus.magnitude));
      }
      // Fourth order from the two second-order quotients; their gap is its error times about 1/step².
      const double numeric = (4 * difference[0] - difference[1]) / 3, gap = std::fabs(difference[0] - difference[1]);
      const double tolerance = 4 * kUnit * magnitude / width[0] + gap * 8 * step + 8 * kUnit * std::fabs(numeric);
      const double analytic = dx.at(i);
      char text[160];
      std::snprintf(text, sizeof text, "element %lld: backward %.9g, differences %.9g, tolerance %.3g",
                    static_cast<long long>(i), analytic, numeric, tolerance);
      report(tally, std::fabs(analytic - numeric) <= tolerance,
             "grad " + g.op + " [" + g.name + "] of input " + std::to_string(pair.forward_input) + ": " + text);
      // The check itself must see a gradient of twice the size, and one of the other sign.
      if (std::fabs(numeric) > 2 * tolerance)
        report(tally,
               !(std::fabs(2 * analytic - numeric) <= tolerance) && !(std::fabs(-analytic - numeric) <= tolerance),
               "grad " + g.op + ": a wrong gradient passes");
    }
  }
}

}  // namespace

void check_gradients(const std::string& filter, Tally& tally) {
  for (const GradCase& g : registry().grads) {
    if ((g.op + " " + g.name).find(filter) == std::string::npos) continue;
    try {
      check_gradient(g, tally);
    } catch (const std::exception& e) {
      report(tally, false, "grad " + g.op + " [" + g.name + "]: " + e.what());
    }
  }
}

}  // namespace temper::test
