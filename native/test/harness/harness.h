// The op tests. A case is one call with its arguments; a file of cases/ registers a table of them, and the same table
// drives
//   check   every element against the reference, outputs poisoned before the call, on every variant (instruction set,
//   thread count) of a backend grad    the reference backward against central differences of the reference forward (the
//   fast backward is held to the reference by check) bench   native/bench, for the cases that state their work
// To add an op: a file in cases/ with `static const Suite suite{[](Registry& r) { r.check({...}); }};`. Start reading
// at Case.
#pragma once
#include <cstdint>
#include <cstring>
#include <functional>
#include <string>
#include <type_traits>
#include <vector>
#include "cpu/host/bf16.h"
#include "cpu/host/isa.h"
#include "temper/backend.h"
#include "temper/ops.h"

namespace temper::test {

// Under AddressSanitizer everything is some four times slower: what only repeats the same accesses is left out there.
#if defined(__SANITIZE_ADDRESS__)
inline constexpr bool kSanitized = true;
#else
inline constexpr bool kSanitized = false;
#endif

using Shape = std::vector<int64_t>;

enum class Role { in, out, update };  // update: read and written (parameter gradients, in-place ops)

// One argument: a tensor with its own bytes, null, or a number.
struct Value {
  template <class N>
    requires std::is_arithmetic_v<N>
  Value(N x) : number(static_cast<double>(x)) {}  // implicit: scalars stand in the table as they are
  Value(int x) : number(x) {}                     // a literal 0 is a number, not null
  Value(std::nullptr_t) : is_null(true) {}
  Value(DType dtype, const Shape& shape, Role role);
  bool is_tensor() const { return !is_null && tensor.ndim > 0; }
  int64_t numel() const { return tensor.numel(); }
  double at(int64_t i) const;  // element i as a double, any dtype
  void set(int64_t i, double x);
  float* f32() { return reinterpret_cast<float*>(bytes.data()); }
  const float* f32() const { return reinterpret_cast<const float*>(bytes.data()); }
  const int32_t* i32() const { return reinterpret_cast<const int32_t*>(bytes.data()); }

  double number = 0;
  bool is_null = false;
  Role role = Role::in;
  int alias = -1;  // an output that shares the memory of that argument
  // dtype and shape; data is set by whoever runs the call
  Tensor tensor;
  std::vector<uint8_t> bytes;
};
inline double Value::at(int64_t i) const {
  switch (tensor.dtype) {
    case DType::f32: {
      float x;
      std::memcpy(&x, bytes.data() + 4 * i, 4);
      return x;
    }
    case DType::bf16: {
      uint16_t x;
      std::memcpy(&x, bytes.data() + 2 * i, 2);
      return cpu::bf16_to_float(x);
    }
    case DType::i32: {
      int32_t x;
      std::memcpy(&x, bytes.data() + 4 * i, 4);
      return x;
    }
    case DType::u8: return bytes[static_cast<size_t>(i)];
  }
  return 0;
}
using Values = std::vector<Value>;

// Argument builders. Floats have both signs, zeros and a few large values; scale is their typical size.
Value floats(const Shape& shape, uint64_t seed, double scale = 1, DType dtype = DType::f32);
// no outliers: for differences and exponentials
Value smooth(const Shape& shape, uint64_t seed, double scale = 1, DType dtype = DType::f32);
Value positive(const Shape& shape, uint64_t seed, double low, double high);  // uniform
Value values_f32(const Shape& shape, const std::vector<float>& x);
Value values_i32(const Shape& shape, const std::vector<int32_t>& x);
Value indices(const Shape& shape, uint64_t seed, int64_t limit);  // uniform in [0, limit)
Value bytes_u8(const Shape& shape, uint64_t seed, int low = 0, int high = 255);
Value out(const Shape& shape, DType dtype = DType::f32);
Value out_alias(const Shape& shape, int argument);
Value update(Value initial);
// Keys [S,Hkv,Dh] whose sequence b lies in rows k_start[b]… laid out in pages as attention_fwd reads them: pages in
// falling order, one for sequences that begin in the same row, NaN where no key is.
struct Paged {
  Value k, v, pages;
};
Paged in_pages(const Value& k, const Value& v, const std::vector<int32_t>& k_start, const std::vector<int32_t>& k_len,
               int64_t page, DType dtype = DType::f32);
uint64_t random_bits(uint64_t seed, uint64_t i);
double random_unit(uint64_t seed, uint64_t i);  // [0, 1)

// Tolerance per argument (outputs only) and element; an output left empty must match to the bit.
using Tolerance = std::vector<std::vector<double>>;
struct Case;
// before: the arguments as given; want: after the reference ran.
using Bound = std::function<void(const Case&, const Values& before, const Values& want, Tolerance&)>;

struct Case {
  std::string op, name;
  Values args;
  Bound bound = nullptr;
  double flops = 0, bytes = 0;  // work of one call; both 0: not benched
  std::string error = "";       // not empty: the call must fail with this code
  bool slow = false;            // left out by --quick
  bool bench_only = false;
  bool bf16_products = false;  // bench: measured against the peak of bf16 products instead of f32
};

// Unit roundoff of f32, and the error of a sum of n rounded products relative to Σ|a·b|: rounding errors are
// independent, so they grow with √n (Higham & Mary 2019); 8 covers the handful of roundings before and after the sum.
inline constexpr double kUnit = 0x1p-24;
inline double rounding(double terms) { return (8 + 2 * __builtin_sqrt(terms)) * kUnit; }

// Tolerance of ops that are sums of products: the reference run on the absolute values gives Σ|a·b| of every output
// element.
Bound sum_of_products(double terms);
Tolerance no_tolerance(const Case& c);

struct GradPair {
  int forward_input, backward_output;
};
struct GradCase {
  std::string op, name;  // the op that computes the gradient
  std::string forward;
  Values args;               // of forward
  std::vector<int> outputs;  // forward's differentiable outputs; the loss is Σ upstream·output
  std::vector<GradPair> pairs;
  // Arguments of op, from forward's arguments after it ran and one upstream gradient per output.
  std::function<Values(const Values& after, const Values& upstream)> backward;
};

class Registry {
 public:
  void check(Case c) { cases.push_back(std::move(c)); }
  void grad(GradCase g) { grads.push_back(std::move(g)); }
  bool for_bench = false;  // the large cases that only the bench runs are not even built for the tests
  bool for_quick = false;  // nor, where nothing but --quick asks for cases, the slow ones
  bool leaves_out(bool slow) const { return slow && for_quick; }
  std::vector<Case> cases;
  std::vector<GradCase> grads;
};
struct Suite {
  explicit Suite(void (*fill)(Registry&));
};
void build_quick_cases_alone();              // before the first call of registry
Registry& registry(bool for_bench = false);  // filled at the first call by every Suite linked in

// A backend under test: its table, its memory and the variants its results are checked in.
struct Variant {
  std::string name;   // results are compared with the reference once per name …
  std::string group;  // … and must have the same bits in all variants of one group
  std::function<void()> enter;
};
struct Backend {
  std::string name;
  const TemperOps* ops;
  std::vector<Variant> variants;
  void* (*acquire)(size_t bytes);
  void (*put)(void* device, const void* host, size_t bytes);
  void (*get)(void* host, const void* device, size_t bytes);
  void (*drop)(void* device);
  void (*refused)() = nullptr;  // makes the error of a refused call the program's own; null: it is
  // waits for an op that runs by itself and returns what it found wrong; null: ops are done when they return
  int (*finish)() = nullptr;
};
int settle(const Backend& backend, int status);  // status of a call once it is done
std::vector<cpu::Isa> paths_under_test();        // those this CPU has, or the one that TEMPER_ISA names
// native/cuda compiled for the host, its threads started in rising and in falling order
Backend emulated_backend();
Backend cuda_backend();           // build/temper_cuda.so or TEMPER_CUDA_LIBRARY on device 0, every case twice
Backend cpu_backend(bool quick);  // quick: two thread counts instead of four

// Calls op of the table on host values through their own bytes; 0 or the status.
int invoke(const TemperOps& ops, const std::string& op, const Values& args, const std::vector<Tensor*>& tensors);
// The arguments after op ran on copies of them in a backend's memory. Throws Error when it fails.
Values call(const Backend& backend, const std::string& op, Values args);
Values run_reference(const std::string& op, Values args);  // throws std::runtime_error when the reference fails
const std::vector<std::string>& op_names();

// The comparer: empty when every element is within its tolerance, else what is wrong first. Written so that NaN fails.
std::string compare(const Value& got, const Value& want, const std::vector<double>& tolerance);

// What the reference says of a case, computed once: several backends, and several ways through one, run every case.
struct Expected {
  Values want;  // outputs; empty where the argument is none
  Tolerance tolerance;
};
const Expected& expected_of(const Case& c, const Values& before);  // before: its arguments

struct Tally {
  int64_t passed = 0, failed = 0;
};
void report(Tally& tally, bool ok, const std::string& what);
void check_cases(const Backend& backend, bool quick, const std::string& filter, Tally& tally);
// Those whose products round their operands to bf16, which a device's way of multiplying is chosen for: at precision 0
// there is one way.
void check_bf16_products(const Backend& backend, Tally& tally);
void check_bf16_attention_bwd(const Backend& backend, Tally& tally);
double precision_of(const Case& c);  // of an op that multiplies: its argument
void work_out_answers(bool quick);   // what the reference says of every case, and how near a result must come
void check_gradients(const std::string& filter, Tally& tally);
void check_comparer(Tally& tally);   // the comparer itself: what it must refuse
void check_emulation(Tally& tally);  // the emulation of CUDA that the CUDA kernels are tested in
void check_core(Tally& tally);       // allocator, thread pool, mapped files, last error
// every op against arguments made wrong at random; null: the CPU's paths
void check_hostile(const Backend* device, const std::string& filter, Tally& tally);
// arena, limit, transfers, typed errors of the CUDA backend's host side, on the emulation
void check_device(Tally& tally);
void check_tokenizer(Tally& tally);                          // the byte-pair encoder against the plain algorithm
void check_cublaslt(const Backend& emulated, Tally& tally);  // products through a library, which a stand-in plays
void check_tiles(const Backend& emulated, Tally& tally);     // products in tiles: the same bits on every device
void check_wgmma(const Backend& emulated, Tally& tally);     // products and attention by warpgroups
void check_narrow(const Backend& emulated, Tally& tally);    // LoRA's products: the same bits in both sizes of a tile
void check_few_rows(const Backend& backend, Tally& tally);   // products: the same bits for a row alone and among others
// ops that are several others in one: their bits, and on the emulated device one launch where a kernel takes them
void check_composed(const Backend& backend, Tally& tally);
void check_attention_tolerances(Tally& tally);  // those of precision 1 see a wrong mask and a missing sink
void check_invariance(Tally& tally);  // attention: the same bits in training and serving, and at both precisions
// the same on a device, whichever kernel computes it
void check_device_attention(const Backend& backend, Tally& tally);
void check_moments(const Backend& backend, Tally& tally);  // moments in 8 bits: the same bits everywhere
void check_rounded(const Backend& backend, Tally& tally);  // activations in bf16: the bits of f32
// what ops say they hold beside their arguments, against what they do
void check_workspace(Tally& tally);
void check_device_workspace(const Backend& backend, const TemperBackend& library, Tally& tally);
void check_numeric(Tally& tally);  // exp and the random numbers
void check_paths(Tally& tally);    // forcing an instruction set really changes what runs
void check_sweep(Tally& tally);    // every op has a case, every backward a gradient

}  // namespace temper::test
