// Contracts as one line per op, in the order of TEMPER_OP_NAMES:
//   tensor   [=]name:dtype[dims][?]   "=" written, "?" may be null; dtype f32 bf16 i32 u8, wf (f32 or bf16), any
//   dims     a symbol binds where first seen and must agree later; 2F, C/32, V^32 (rounded up), B+1 derive from it;
//   ...s any run of dims scalar   name:int[lo,hi] or name:num[lo,hi]; an empty bound is open, "hi)" excludes hi; num is
//   finite unless "raw"
// Rules that need more than one argument follow as code.
#include "core/contract.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <sstream>
#include <string_view>

#include "temper/error.h"
#include "temper/ops.h"

namespace temper::contract {
namespace {

constexpr int kMaxSymbols = 16;
constexpr int64_t kUnbound = -1;
constexpr unsigned kF32 = 1, kBf16 = 2, kI32 = 4, kU8 = 8;

struct Dim {
  int symbol = -1;  // -1: the literal `add`
  bool rest = false;
  int64_t mul = 1, div = 1, add = 0;
  bool up = false;
  std::string text;
};
struct Spec : Arg {
  unsigned dtypes = 0;
  std::vector<Dim> dims;
  double low = -std::numeric_limits<double>::infinity(), high = -low;
  bool open_high = false, raw = false;
  std::string dtype_text;
};

struct Rest {
  int ndim = -1;
  int64_t shape[kMaxDims] = {};
};
struct Call {
  const struct Op& op;
  const TensorRef* t;
  const double* n;
  std::array<int64_t, kMaxSymbols> value;
  std::array<Rest, kMaxSymbols> rest;
  int64_t& operator[](const char* symbol);
  [[noreturn]] void shape_error(int arg, const std::string& wanted) const;
};
using Rule = void (*)(Call&);

struct Line {
  const char* name;
  const char* args;
  const char* may_alias;
  Rule rule;
};

struct Op {
  const char* name;
  std::vector<Spec> specs;
  std::vector<Arg> args;
  std::vector<std::string> symbols;
  std::vector<std::pair<int, int>> may_alias;  // (output, input)
  Rule rule;

  int arg(std::string_view wanted) const {
    for (size_t i = 0; i < specs.size(); ++i)
      if (specs[i].name == wanted) return static_cast<int>(i);
    fail("internal", name, ": contract names no argument ", wanted);
  }
  int symbol(std::string_view s) {
    for (size_t i = 0; i < symbols.size(); ++i)
      if (symbols[i] == s) return static_cast<int>(i);
    require(symbols.size() < kMaxSymbols, "internal", name, ": too many dimensions in the contract");
    symbols.emplace_back(s);
    return static_cast<int>(symbols.size()) - 1;
  }
};

int64_t& Call::operator[](const char* symbol) {
  for (size_t i = 0; i < op.symbols.size(); ++i)
    if (op.symbols[i] == symbol) return value[i];
  fail("internal", op.name, ": contract names no dimension ", symbol);
}

std::string shape_text(TensorRef t) {
  std::ostringstream out;
  out << '[';
  for (int i = 0; i < t->ndim; ++i) out << (i ? ", " : "") << t->shape[i];
  out << ']';
  return out.str();
}

void Call::shape_error(int arg, const std::string& wanted) const {
  fail("shape_mismatch", op.name, ": ", op.specs[arg].name, " has shape ", shape_text(t[arg]), ", wanted ", wanted);
}

// ---- rules over several arguments ----

bool has(const Call& c, const char* name) { return c.t[c.op.arg(name)] != nullptr; }
void together(Call& c, std::initializer_list<const char*> names) {
  bool first = has(c, *names.begin());
  for (const char* name : names) {
    require(has(c, name) == first, "missing_tensor", c.op.name, ": ", *names.begin(), " and ", name,
            " must be given together or both be null");
  }
}
void needs(Call& c, const char* name, const char* other) {
  require(!has(c, name) || has(c, other), "missing_tensor", c.op.name, ": ", name, " is given, ", other,
          " is null; it is needed to compute ", name);
}

void lora_fwd(Call& c) { together(c, {"A", "B", "h"}); }
void rule_linear_q8(Call& c) {
  lora_fwd(c);
  require(c["C"] % 32 == 0, "shape_mismatch", c.op.name, ": C=", c["C"],
          " inputs, wanted a multiple of 32, the group that shares a scale");
}
void lora_bwd(Call& c) {
  together(c, {"A", "B"});
  needs(c, "dA", "A");
  needs(c, "dB", "A");
  needs(c, "dB", "h");
}

// w and scales of the grouped products, by layout (0 MXFP4, 1 out×in, 2 in×out).
void expert_weights(Call& c) {
  int w = c.op.arg("w"), s = c.op.arg("scales");
  auto layout = static_cast<int64_t>(c.n[c.op.arg("layout")]);
  int64_t E = c["E"], N = c["N"], C = c["C"];
  TensorRef t = c.t[w];
  auto is = [&](std::initializer_list<int64_t> shape) {
    return t->ndim == static_cast<int>(shape.size()) && std::equal(shape.begin(), shape.end(), t->shape);
  };
  if (layout == 0) {
    require(t->dtype == DType::u8, "bad_dtype", c.op.name, ": w is ", name_of(t->dtype),
            ", wanted u8 for layout 0 (MXFP4)");
    require(has(c, "scales"), "missing_tensor", c.op.name, ": scales is null, layout 0 (MXFP4) needs it");
    if (C % 32 != 0 || !is({E, N, C / 32, 16})) {
      std::ostringstream want;
      want << "[E=" << E << ", N=" << N << ", C/32 of C=" << C << ", 16] for layout 0";
      c.shape_error(w, want.str());
    }
    return;
  }
  require(t->dtype == DType::f32 || t->dtype == DType::bf16, "bad_dtype", c.op.name, ": w is ", name_of(t->dtype),
          ", wanted bf16 or f32 for layout ", layout);
  require(c.t[s] == nullptr, "bad_argument", c.op.name, ": scales is given, layout ", layout, " has none");
  if (!(layout == 1 ? is({E, N, C}) : is({E, C, N}))) {
    std::ostringstream want;
    want << (layout == 1 ? "[E, N, C]" : "[E, C, N]") << " with E=" << E << ", N=" << N << ", C=" << C;
    c.shape_error(w, want.str());
  }
}

// A tensor of rows that is indexed by `rows`, or is itself P rows where `rows` is null.
void indexed(Call& c, const char* tensor, const char* rows, const char* symbol) {
  if (has(c, rows)) return;
  if (c["P"] == kUnbound) c["P"] = c[symbol];
  if (c["P"] != c[symbol])
    c.shape_error(c.op.arg(tensor), "P=" + std::to_string(c["P"]) + " rows where " + rows + " is null");
}

void rule_rope(Call& c) {
  TensorRef x = c.t[0];
  int64_t heads = static_cast<int64_t>(c.n[3]), T = c["T"], J = c["J"];
  bool ok = (x->ndim == 2 || x->ndim == 3) && x->shape[0] == T &&
            (x->ndim == 2 ? x->shape[1] == heads * 2 * J : x->shape[1] == heads && x->shape[2] == 2 * J);
  if (!ok)
    c.shape_error(0, "[T=" + std::to_string(T) + ", H·Dh] or [T, H, Dh] with H=" + std::to_string(heads) +
                         ", Dh=" + std::to_string(2 * J));
  require(c.n[4] != 0, "bad_argument", c.op.name, ": direction is 0, wanted 1 or -1");
}
void rule_attention(Call& c) {
  require(c["Hkv"] > 0 && c["H"] % c["Hkv"] == 0, "shape_mismatch", c.op.name, ": ", c["H"],
          " query heads are not a multiple of ", c["Hkv"], " kv heads");
}
void rule_topk(Call& c) {
  require(c["K"] >= 1 && c["K"] <= c["E"], "shape_mismatch", c.op.name, ": K=", c["K"],
          " experts per token, wanted 1…E=", c["E"]);
}
void rule_moe_plan(Call& c) {
  require(c["P"] == c["T"] * c["K"], "shape_mismatch", c.op.name, ": row_token has ", c["P"],
          " rows, wanted T·K = ", c["T"], "·", c["K"]);
}
void rule_grouped_fwd(Call& c) {
  lora_fwd(c);
  indexed(c, "x", "rows", "X");
  expert_weights(c);
}
void rule_grouped_bwd(Call& c) {
  lora_bwd(c);
  indexed(c, "dy", "dy_rows", "Y");
  indexed(c, "x", "x_rows", "X");
  expert_weights(c);
}
void rule_same_dtype(Call& c) {
  require(c.t[0]->dtype == c.t[1]->dtype, "bad_dtype", c.op.name, ": dst is ", name_of(c.t[0]->dtype), ", src is ",
          name_of(c.t[1]->dtype), "; wanted one dtype");
}
void rule_cast(Call& c) {
  auto is_float = [](DType d) { return d == DType::f32 || d == DType::bf16; };
  DType a = c.t[0]->dtype, b = c.t[1]->dtype;
  require(a == b || (is_float(a) && is_float(b)), "bad_dtype", c.op.name, ": from ", name_of(b), " to ", name_of(a),
          "; wanted f32 and bf16, or one dtype");
}
void rule_ordered(Call& c) {  // the last two scalars are bounds
  size_t n = c.op.specs.size();
  require(c.n[n - 2] <= c.n[n - 1], "bad_argument", c.op.name, ": low ", c.n[n - 2], " is above high ", c.n[n - 1]);
}

// ---- the contracts ----

const Line kLines[] = {
    {"embedding_fwd", "=y:f32[T,D] table:wf[V,D] ids:i32[T]", "", nullptr},
    {"embedding_bwd", "=dtable:f32[V,D] dy:f32[T,D] ids:i32[T]", "", nullptr},
    {"rmsnorm_fwd", "=y:f32[T,D] =rstd:f32[T] =sum:f32[T,D]? x:f32[T,D] residual:f32[T,D]? w:wf[D] eps:num[0,]",
     "sum=x", nullptr},
    {"rmsnorm_bwd", "=dx:f32[T,D] =dw:f32[D]? dy:f32[T,D] dres:f32[T,D]? x:f32[T,D] w:wf[D] rstd:f32[T]",
     "dx=dres dx=dy", nullptr},
    {"rope_table", "=cos:f32[T,J] =sin:f32[T,J] positions:i32[T] inv_freq:f32[J] m:num[,]", "", nullptr},
    {"rope", "=x:f32[...x] cos:f32[T,J] sin:f32[T,J] heads:int[1,] direction:int[-1,1]", "", rule_rope},
    {"linear_fwd",
     "=y:f32[T,N] =h:f32[T,R]? x:f32[T,C] w:wf[N,C] bias:wf[N]? A:f32[R,C]? B:f32[N,R]? scale:num[,] dropout:num[0,1) "
     "seed:int[,] precision:int[0,1]",
     "", lora_fwd},
    {"linear_bwd",
     "=dx:f32[T,C]? =dw:f32[N,C]? =dbias:f32[N]? =dA:f32[R,C]? =dB:f32[N,R]? dy:f32[T,N] x:f32[T,C] h:f32[T,R]? "
     "w:wf[N,C] A:f32[R,C]? B:f32[N,R]? "
     "scale:num[,] dropout:num[0,1) seed:int[,] accumulate_dx:int[0,1] precision:int[0,1]",
     "", lora_bwd},
    {"q8_quantize", "=q:u8[...L,32G] =scales:bf16[...L,G] w:wf[...L,32G]", "", nullptr},
    {"linear_q8_fwd",
     "=y:f32[T,N] =h:f32[T,R]? x:f32[T,C] q:u8[N,C] scales:bf16[N,C/32] bias:wf[N]? A:f32[R,C]? B:f32[N,R]? "
     "scale:num[,] precision:int[0,1]",
     "", rule_linear_q8},
    {"linear_cross_entropy",
     "=nll:f32[S] =dx:f32[S,D]? =dw:f32[V,D]? x:f32[S,D] w:wf[V,D] targets:i32[S] weights:f32[S]? precision:int[0,1]",
     "", nullptr},
    {"attention_fwd",
     "=o:f32[T,H,Dh] =lse:f32[T,H]? q:f32[T,H,Dh] k:f32[S,Hkv,Dh] v:f32[S,Hkv,Dh] sinks:wf[H]? q_start:i32[B+1] "
     "k_start:i32[B] k_len:i32[B] "
     "window:int[0,] ring:int[0,] scale:num[,] precision:int[0,1]",
     "", rule_attention},
    {"attention_bwd",
     "=dq:f32[T,H,Dh] =dk:f32[S,Hkv,Dh] =dv:f32[S,Hkv,Dh] =dsinks:f32[H]? dout:f32[T,H,Dh] q:f32[T,H,Dh] "
     "k:f32[S,Hkv,Dh] v:f32[S,Hkv,Dh] "
     "o:f32[T,H,Dh] lse:f32[T,H] sinks:wf[H]? q_start:i32[B+1] k_start:i32[B] k_len:i32[B] window:int[0,] scale:num[,] "
     "precision:int[0,1]",
     "", rule_attention},
    {"topk_fwd", "=weights:f32[T,K] =ids:i32[T,K] logits:f32[T,E]", "", rule_topk},
    {"topk_bwd", "=dlogits:f32[T,E] dweights:f32[T,K] weights:f32[T,K] ids:i32[T,K]", "", rule_topk},
    {"moe_plan",
     "=offsets:i32[E+1] =row_token:i32[P] =slot_row:i32[T,K] =row_weight:f32[P] ids:i32[T,K] weights:f32[T,K]", "",
     rule_moe_plan},
    {"grouped_linear_fwd",
     "=y:f32[P,N] =h:f32[P,R]? x:f32[X,C] rows:i32[P]? offsets:i32[E+1] w:any[...w] scales:u8[E,N,C/32]? bias:wf[E,N]? "
     "A:f32[E,R,C]? B:f32[E,N,R]? "
     "scale:num[,] layout:int[0,2] precision:int[0,1]",
     "", rule_grouped_fwd},
    {"grouped_linear_bwd",
     "=dx:f32[P,C]? =dw:f32[E,N,C]? =dbias:f32[E,N]? =dA:f32[E,R,C]? =dB:f32[E,N,R]? dy:f32[Y,N] dy_rows:i32[P]? "
     "row_weight:f32[P]? x:f32[X,C] "
     "x_rows:i32[P]? h:f32[P,R]? offsets:i32[E+1] w:any[...w] scales:u8[E,N,C/32]? A:f32[E,R,C]? B:f32[E,N,R]? "
     "scale:num[,] layout:int[0,2] precision:int[0,1]",
     "", rule_grouped_bwd},
    {"swiglu_fwd", "=a:f32[P,F] z:f32[P,2F] alpha:num[,] limit:num[0,]", "", nullptr},
    {"swiglu_bwd",
     "=dz:f32[P,2F] =row_dot:f32[P]? da:f32[P,F] z:f32[P,2F] row_weight:f32[P]? alpha:num[,] limit:num[0,]", "",
     nullptr},
    {"moe_combine", "=out:f32[T,D] y:f32[P,D] weights:f32[T,K]? slot_row:i32[T,K] accumulate:int[0,1]", "", nullptr},
    {"moe_weight_bwd", "=dweights:f32[T,K] row_dot:f32[P] dout:f32[T,D] bias:wf[E,D]? ids:i32[T,K] slot_row:i32[T,K]",
     "", nullptr},
    {"adamw",
     "=p:f32[...s] =m:f32[...s] =v:f32[...s] g:f32[...s] lr:num[,] beta1:num[0,1) beta2:num[0,1) eps:num[0,] "
     "weight_decay:num[,] step:int[1,] "
     "grad_scale:num[,]",
     "", nullptr},
    {"sum_squares", "=out:f32[1] x:f32[...s]", "", nullptr},
    {"gather_rows", "=dst:any[n,...w] src:any[m,...w] rows:i32[n]", "", rule_same_dtype},
    {"scatter_rows", "=dst:any[m,...w] src:any[n,...w] rows:i32[n]", "", rule_same_dtype},
    {"add", "=dst:f32[...s] src:f32[...s]", "", nullptr},
    {"cast", "=dst:any[...s] src:any[...s]", "", rule_cast},
    {"fill", "=dst:any[...s] value:raw[,]", "", nullptr},
    {"mxfp4_quantize", "=blocks:u8[...L,G,16] =scales:u8[...L,G] w:wf[...L,32G]", "", nullptr},
    {"mxfp4_dequantize", "=w:wf[...L,32G] blocks:u8[...L,G,16] scales:u8[...L,G]", "", nullptr},
    {"random_uniform", "=dst:wf[...s] seed:int[,] low:num[,] high:num[,]", "", rule_ordered},
    {"random_normal", "=dst:wf[...s] seed:int[,] scale:num[,]", "", nullptr},
    {"random_bytes", "=dst:u8[...s] seed:int[,] low:int[0,255] high:int[0,255]", "", rule_ordered},
    {"sample", "=tokens:i32[B] =logprobs:f32[B] logits:f32[B,V] params:f32[B,4] u:f32[B] mask:i32[B,V^32]?", "",
     nullptr},
};

// ---- reading the lines, once ----

std::vector<std::string> split(std::string_view text, char by) {
  std::vector<std::string> out;
  while (!text.empty()) {
    size_t at = std::min(text.find(by), text.size());
    if (at > 0) out.emplace_back(text.substr(0, at));
    text.remove_prefix(std::min(at + 1, text.size()));
  }
  return out;
}

Dim parse_dim(Op& op, const std::string& text) {
  Dim d;
  d.text = text;
  if (text.starts_with("...")) {
    d.rest = true;
    d.symbol = op.symbol(text);
    return d;
  }
  size_t i = 0;
  int64_t lead = 0;
  while (i < text.size() && std::isdigit(static_cast<unsigned char>(text[i]))) lead = lead * 10 + (text[i++] - '0');
  if (i == text.size()) {
    d.add = lead;
    return d;
  }
  if (i > 0) d.mul = lead;
  size_t from = i;
  while (i < text.size() && std::isalpha(static_cast<unsigned char>(text[i]))) ++i;
  d.symbol = op.symbol(std::string_view(text).substr(from, i - from));
  if (i < text.size()) {
    int64_t number = std::atoll(text.c_str() + i + 1);
    if (text[i] == '+') d.add = number;
    else d.div = number, d.up = text[i] == '^';
  }
  return d;
}

Spec parse_arg(Op& op, std::string text) {
  Spec s;
  if (text.starts_with("=")) s.output = true, text.erase(0, 1);
  if (text.ends_with("?")) s.nullable = true, text.pop_back();
  size_t colon = text.find(':'), bracket = text.find('[');
  s.name = text.substr(0, colon);
  s.dtype_text = text.substr(colon + 1, bracket - colon - 1);
  std::string inside = text.substr(bracket + 1, text.size() - bracket - 2);
  const std::string& d = s.dtype_text;
  if (d == "int" || d == "num" || d == "raw") {
    s.kind = d == "int" ? Kind::integer : Kind::number;
    s.raw = d == "raw";
    s.open_high = text.ends_with(")");
    size_t comma = inside.find(',');
    if (comma > 0) s.low = std::atof(inside.c_str());
    if (comma + 1 < inside.size()) s.high = std::atof(inside.c_str() + comma + 1);
    return s;
  }
  s.dtypes = d == "f32"    ? kF32
             : d == "bf16" ? kBf16
             : d == "i32"  ? kI32
             : d == "u8"   ? kU8
             : d == "wf"   ? kF32 | kBf16
                           : kF32 | kBf16 | kI32 | kU8;
  for (const std::string& dim : split(inside, ',')) s.dims.push_back(parse_dim(op, dim));
  return s;
}

std::vector<Op> parse_lines() {
  std::vector<Op> out;
  for (const Line& line : kLines) {
    Op op{line.name, {}, {}, {}, {}, line.rule};
    for (const std::string& text : split(line.args, ' ')) op.specs.push_back(parse_arg(op, text));
    for (const Spec& s : op.specs) op.args.push_back(s);
    for (const std::string& pair : split(line.may_alias, ' ')) {
      size_t at = pair.find('=');
      op.may_alias.emplace_back(op.arg(pair.substr(0, at)), op.arg(pair.substr(at + 1)));
    }
    out.push_back(std::move(op));
  }
  return out;
}

const std::vector<Op>& all() {
  static const std::vector<Op>* ops = new std::vector<Op>(parse_lines());
  return *ops;
}

#define TEMPER_NAME(name) #name,
constexpr const char* kNames[] = {TEMPER_OP_NAMES(TEMPER_NAME)};
#undef TEMPER_NAME
static_assert(std::size(kLines) == std::size(kNames), "an op has no contract line");

// ---- checking a call ----

std::string wanted_text(const Call& c, const Spec& s) {
  std::ostringstream out;
  out << '[';
  bool first = true;
  for (const Dim& d : s.dims) {
    out << (first ? "" : ", ") << d.text;
    first = false;
    if (d.rest) {
      const Rest& r = c.rest[d.symbol];
      for (int i = 0; i < r.ndim; ++i) out << (i ? "," : "=") << r.shape[i];
    } else if (d.symbol >= 0 && c.value[d.symbol] != kUnbound) {
      out << (d.text == c.op.symbols[d.symbol] ? "=" : " of ") << c.value[d.symbol];
    }
  }
  out << ']';
  return out.str();
}

bool match_dim(Call& c, const Dim& d, int64_t got) {
  if (d.symbol < 0) return got == d.add;
  int64_t& value = c.value[d.symbol];
  if (value == kUnbound) {
    int64_t scaled = (got - d.add) * d.div;
    if (scaled < 0 || d.up || scaled % d.mul != 0) return false;
    value = scaled / d.mul;
    return true;
  }
  if (d.div > 1 && !d.up && value % d.div != 0) return false;
  return got == (value * d.mul + (d.up ? d.div - 1 : 0)) / d.div + d.add;
}

bool match_rest(Rest& r, const int64_t* shape, int ndim) {
  if (r.ndim < 0) {
    r.ndim = ndim;
    std::copy(shape, shape + ndim, r.shape);
    return true;
  }
  return r.ndim == ndim && std::equal(shape, shape + ndim, r.shape);
}

bool match_shape(Call& c, const Spec& s, TensorRef t) {
  int fixed = static_cast<int>(s.dims.size());
  int rest = -1;
  for (int i = 0; i < fixed; ++i)
    if (s.dims[i].rest) rest = i;
  if (rest < 0) {
    if (t->ndim != fixed) return false;
    for (int i = 0; i < fixed; ++i)
      if (!match_dim(c, s.dims[i], t->shape[i])) return false;
    return true;
  }
  int run = t->ndim - (fixed - 1);
  if (run < 0) return false;
  for (int i = 0; i < rest; ++i)
    if (!match_dim(c, s.dims[i], t->shape[i])) return false;
  if (!match_rest(c.rest[s.dims[rest].symbol], t->shape + rest, run)) return false;
  for (int i = rest + 1; i < fixed; ++i)
    if (!match_dim(c, s.dims[i], t->shape[run + i - 1])) return false;
  return true;
}

void check_scalar(const Op& op, const Spec& s, double v) {
  if (s.kind == Kind::integer) {
    require(std::isfinite(v) && v == std::trunc(v) && std::fabs(v) <= 9007199254740992.0, "bad_argument", op.name, ": ",
            s.name, " is ", v, ", wanted an integer of at most 53 bits");
  } else {
    require(s.raw || std::isfinite(v), "bad_argument", op.name, ": ", s.name, " is ", v, ", wanted a finite number");
  }
  bool below = s.open_high ? v < s.high : v <= s.high;
  require(s.raw || (v >= s.low && below), "bad_argument", op.name, ": ", s.name, " is ", v, ", wanted ", s.low, "…",
          s.high, s.open_high ? " (excluded)" : "");
}

void check_aliasing(const Op& op, const TensorRef* t) {
  size_t n = op.specs.size();
  for (size_t o = 0; o < n; ++o) {
    if (!op.specs[o].output || !t[o]) continue;
    auto a = reinterpret_cast<uintptr_t>(t[o]->data);
    size_t a_bytes = t[o]->bytes();
    for (size_t i = 0; i < n; ++i) {
      if (i == o || op.specs[i].kind != Kind::tensor || !t[i] || (op.specs[i].output && i < o)) continue;
      auto b = reinterpret_cast<uintptr_t>(t[i]->data);
      size_t b_bytes = t[i]->bytes();
      if (a_bytes == 0 || b_bytes == 0 || a >= b + b_bytes || b >= a + a_bytes) continue;
      bool allowed = a == b && a_bytes == b_bytes &&
                     std::find(op.may_alias.begin(), op.may_alias.end(),
                               std::pair(static_cast<int>(o), static_cast<int>(i))) != op.may_alias.end();
      require(allowed, "aliasing", op.name, ": ", op.specs[o].name, " and ", op.specs[i].name,
              " share memory; the op writes ", op.specs[o].name, ", so give it its own");
    }
  }
}

}  // namespace

int op_count() { return static_cast<int>(std::size(kNames)); }
const char* op_name(int op) { return kNames[op]; }
std::span<const Arg> args_of(int op) { return all()[op].args; }

void check(int id, const TensorRef* tensors, const double* numbers) {
  const Op& op = all()[id];
  Call call{op, tensors, numbers, {}, {}};
  call.value.fill(kUnbound);
  for (size_t i = 0; i < op.specs.size(); ++i) {
    const Spec& s = op.specs[i];
    if (s.kind != Kind::tensor) {
      check_scalar(op, s, numbers[i]);
      continue;
    }
    TensorRef t = tensors[i];
    if (!t) {
      require(s.nullable, "missing_tensor", op.name, ": ", s.name, " is null, wanted a tensor");
      continue;
    }
    require((s.dtypes >> static_cast<int>(t->dtype)) & 1, "bad_dtype", op.name, ": ", s.name, " is ", name_of(t->dtype),
            ", wanted ", s.dtype_text == "wf" ? "f32 or bf16" : s.dtype_text);
    if (!match_shape(call, s, t)) call.shape_error(static_cast<int>(i), wanted_text(call, s));
  }
  if (op.rule) op.rule(call);
  check_aliasing(op, tensors);
}

}  // namespace temper::contract
