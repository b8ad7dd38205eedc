// Reads the contracts of temper/ops.def, which says how they are written, and checks calls against them. Rules that
// take more than one argument are code, here.
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
  std::vector<double> values;  // an integer of few: these alone
  std::vector<std::string> may_alias;
  Index::Kind index = Index::none;
  int limit = -1;  // the symbol that bounds indices
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

// w and scales of the grouped products with N outputs, by layout (0 MXFP4, 1 out×in, 2 in×out).
void expert_weights(Call& c, int64_t N) {
  int w = c.op.arg("w"), s = c.op.arg("scales");
  auto layout = static_cast<int64_t>(c.n[c.op.arg("layout")]);
  int64_t E = c["E"], C = c["C"];
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

namespace rule {

constexpr Rule none = nullptr;

void lora_fwd(Call& c) { together(c, {"A", "B", "h"}); }
void linear_q8(Call& c) {
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

void rope(Call& c) {
  TensorRef x = c.t[0];
  int64_t heads = static_cast<int64_t>(c.n[3]), T = c["T"], J = c["J"];
  bool ok = (x->ndim == 2 || x->ndim == 3) && x->shape[0] == T &&
            (x->ndim == 2 ? x->shape[1] == heads * 2 * J : x->shape[1] == heads && x->shape[2] == 2 * J);
  if (!ok)
    c.shape_error(0, "[T=" + std::to_string(T) + ", H·Dh] or [T, H, Dh] with H=" + std::to_string(heads) +
                         ", Dh=" + std::to_string(2 * J));
}
// A dense weight: q8 where its scales are given, else wf.
void dense_weight(Call& c, const char* weight, const char* scales) {
  TensorRef w = c.t[c.op.arg(weight)];
  const bool q8 = has(c, scales);
  require(q8 ? w->dtype == DType::u8 : w->dtype == DType::f32 || w->dtype == DType::bf16, "bad_dtype", c.op.name, ": ",
          weight, " is ", name_of(w->dtype), ", wanted ", q8 ? "u8 beside " : "bf16 or f32 without ", scales);
}
void linear_qkv(Call& c) {
  dense_weight(c, "wq", "q_scales");
  dense_weight(c, "wk", "k_scales");
  dense_weight(c, "wv", "v_scales");
  const int64_t Dh = c["Dh"], H = c["H"], Hkv = c["Hkv"];
  require(c["N"] == H * Dh && c["M"] == Hkv * Dh && Dh == 2 * c["J"], "shape_mismatch", c.op.name, ": ", c["N"],
          " and ", c["M"], " outputs and ", c["J"], " angles, wanted H·Dh=", H, "·", Dh, ", Hkv·Dh=", Hkv, "·", Dh,
          " and half of Dh");
  require(c.t[c.op.arg("k")]->dtype == c.t[c.op.arg("v")]->dtype, "bad_dtype", c.op.name,
          ": k and v are of two dtypes");
}
void attention(Call& c) {
  require(c["Hkv"] > 0 && c["H"] % c["Hkv"] == 0, "shape_mismatch", c.op.name, ": ", c["H"],
          " query heads are not a multiple of ", c["Hkv"], " kv heads");
}
void attention_fwd(Call& c) {
  attention(c);
  TensorRef k = c.t[c.op.arg("k")], v = c.t[c.op.arg("v")];
  require(k->dtype == v->dtype, "bad_dtype", c.op.name, ": k is ", name_of(k->dtype), ", v is ", name_of(v->dtype),
          "; wanted one dtype");
  const bool paged = has(c, "pages");
  require(paged != has(c, "k_start"), "missing_tensor", c.op.name, ": k_start and pages are both ",
          paged ? "given" : "null", "; wanted one of them");
  const auto page = static_cast<int64_t>(c.n[c.op.arg("page")]);
  require(paged ? page >= 64 && (page & (page - 1)) == 0 : page == 0, "bad_argument", c.op.name, ": page ", page,
          paged ? ", wanted a power of two from 64 on" : ", wanted 0 without pages");
  require(!paged || c.n[c.op.arg("ring")] == 0, "bad_argument", c.op.name, ": ring ", c.n[c.op.arg("ring")],
          ", wanted 0 with pages");
}
void topk(Call& c) {
  require(c["K"] >= 1 && c["K"] <= c["E"], "shape_mismatch", c.op.name, ": K=", c["K"],
          " experts per token, wanted 1…E=", c["E"]);
}
void moe_plan(Call& c) {
  require(c["P"] == c["T"] * c["K"], "shape_mismatch", c.op.name, ": row_token has ", c["P"],
          " rows, wanted T·K = ", c["T"], "·", c["K"]);
}
void linear_router(Call& c) {
  topk(c);
  require(c["P"] == c["T"] * c["K"], "shape_mismatch", c.op.name, ": row_token has ", c["P"],
          " rows, wanted T·K = ", c["T"], "·", c["K"]);
}
void grouped_fwd(Call& c) {
  lora_fwd(c);
  indexed(c, "x", "rows", "X");
  expert_weights(c, c["N"]);
}
void grouped_swiglu(Call& c) {
  lora_fwd(c);
  indexed(c, "x", "rows", "X");
  expert_weights(c, 2 * c["F"]);
}
void grouped_combine(Call& c) {
  require(c["P"] == c["T"] * c["K"], "shape_mismatch", c.op.name, ": x has ", c["P"], " rows, wanted T·K = ", c["T"],
          "·", c["K"]);
  expert_weights(c, c["D"]);
}
void grouped_lora(Call& c) { indexed(c, "x", "x_rows", "X"); }
void grouped_bwd(Call& c) {
  lora_bwd(c);
  indexed(c, "dy", "dy_rows", "Y");
  indexed(c, "x", "x_rows", "X");
  expert_weights(c, c["N"]);
}
void lora_merge(Call& c) {
  expert_weights(c, c["N"]);
  const int y = c.op.arg("y");
  const bool by_output = c.n[c.op.arg("to")] == 1;
  const int64_t want[3] = {c["E"], by_output ? c["N"] : c["C"], by_output ? c["C"] : c["N"]};
  if (c.t[y]->ndim == 3 && std::equal(want, want + 3, c.t[y]->shape)) return;
  std::ostringstream text;
  text << '[' << want[0] << ", " << want[1] << ", " << want[2] << "] for to " << (by_output ? 1 : 2);
  c.shape_error(y, text.str());
}
void same_dtype(Call& c) {
  require(c.t[0]->dtype == c.t[1]->dtype, "bad_dtype", c.op.name, ": dst is ", name_of(c.t[0]->dtype), ", src is ",
          name_of(c.t[1]->dtype), "; wanted one dtype");
}
void scatter_rows(Call& c) {
  require(c.t[0]->dtype == c.t[1]->dtype || (c.t[0]->dtype == DType::bf16 && c.t[1]->dtype == DType::f32), "bad_dtype",
          c.op.name, ": dst is ", name_of(c.t[0]->dtype), ", src is ", name_of(c.t[1]->dtype),
          "; wanted one dtype, or f32 to be rounded to bf16");
}
void cast(Call& c) {
  auto is_float = [](DType d) { return d == DType::f32 || d == DType::bf16; };
  DType a = c.t[0]->dtype, b = c.t[1]->dtype;
  require(a == b || (is_float(a) && is_float(b)), "bad_dtype", c.op.name, ": from ", name_of(b), " to ", name_of(a),
          "; wanted f32 and bf16, or one dtype");
}
void ordered(Call& c) {  // the last two scalars are bounds
  size_t n = c.op.specs.size();
  require(c.n[n - 2] <= c.n[n - 1], "bad_argument", c.op.name, ": low ", c.n[n - 2], " is above high ", c.n[n - 1]);
}

}  // namespace rule

// ---- the contracts ----

#define TEMPER_LINE(name, arguments, check) {#name, arguments, rule::check},
constexpr Line kLines[] = {TEMPER_OP_CONTRACTS(TEMPER_LINE)};
#undef TEMPER_LINE

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

// What follows the brackets: ? <V /P ~x @host
void parse_notes(Op& op, Spec& s, std::string_view notes) {
  while (!notes.empty()) {
    const char kind = notes.front();
    notes.remove_prefix(1);
    const size_t end = std::min(notes.find_first_of("?<~/@"), notes.size());
    const std::string name(notes.substr(0, end));
    notes.remove_prefix(end);
    if (kind == '?') s.nullable = true;
    else if (kind == '~') s.may_alias.push_back(name);
    else if (kind == '@') s.on_host = true;
    else s.index = kind == '<' ? Index::below : Index::rising, s.limit = op.symbol(name);
  }
}

void parse_number(Spec& s, const std::string& inside, bool few) {
  if (few) {
    for (const std::string& value : split(inside, ',')) s.values.push_back(std::atof(value.c_str()));
    return;
  }
  const size_t comma = inside.find(',');
  if (comma > 0) s.low = std::atof(inside.c_str());
  if (comma + 1 < inside.size()) s.high = std::atof(inside.c_str() + comma + 1);
}

Spec parse_arg(Op& op, std::string_view text) {
  Spec s;
  if (text.starts_with('=')) s.output = true, text.remove_prefix(1);
  const size_t colon = text.find(':'), open = text.find_first_of("[{"), close = text.find_first_of("])}", open);
  s.name = text.substr(0, colon);
  s.dtype_text = text.substr(colon + 1, open - colon - 1);
  const std::string inside(text.substr(open + 1, close - open - 1));
  const std::string& d = s.dtype_text;
  if (d == "int" || d == "num" || d == "raw") {
    s.kind = d == "int" ? Kind::integer : Kind::number;
    s.raw = d == "raw";
    s.open_high = text[close] == ')';
    parse_number(s, inside, text[open] == '{');
    return s;
  }
  s.dtypes = d == "f32"    ? kF32
             : d == "bf16" ? kBf16
             : d == "i32"  ? kI32
             : d == "u8"   ? kU8
             : d == "wf"   ? kF32 | kBf16
             : d == "af"   ? kF32 | kBf16
                           : kF32 | kBf16 | kI32 | kU8;
  s.activation = d == "af";
  for (const std::string& dim : split(inside, ',')) s.dims.push_back(parse_dim(op, dim));
  parse_notes(op, s, text.substr(close + 1));
  return s;
}

std::vector<Op> parse_lines() {
  std::vector<Op> out;
  for (const Line& line : kLines) {
    Op op{line.name, {}, {}, {}, {}, line.rule};
    for (const std::string& text : split(line.args, ' ')) op.specs.push_back(parse_arg(op, text));
    for (size_t i = 0; i < op.specs.size(); ++i) {
      op.args.push_back(op.specs[i]);
      for (const std::string& input : op.specs[i].may_alias)
        op.may_alias.emplace_back(static_cast<int>(i), op.arg(input));
    }
    out.push_back(std::move(op));
  }
  return out;
}

const std::vector<Op>& all() {
  static const std::vector<Op>* ops = new std::vector<Op>(parse_lines());
  return *ops;
}

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

std::string listed(const std::vector<double>& values) {
  std::ostringstream out;
  for (size_t i = 0; i < values.size(); ++i) out << (i == 0 ? "" : i + 1 == values.size() ? " or " : ", ") << values[i];
  return out.str();
}

void check_scalar(const Op& op, const Spec& s, double v) {
  if (s.kind == Kind::integer) {
    require(std::isfinite(v) && v == std::trunc(v) && std::fabs(v) <= 9007199254740992.0, "bad_argument", op.name, ": ",
            s.name, " is ", v, ", wanted an integer of at most 53 bits");
  } else {
    require(s.raw || std::isfinite(v), "bad_argument", op.name, ": ", s.name, " is ", v, ", wanted a finite number");
  }
  // What an error says is made when there is one, as each op of each token comes by here.
  if (!s.values.empty() && std::find(s.values.begin(), s.values.end(), v) == s.values.end())
    fail("bad_argument", op.name, ": ", s.name, " is ", v, ", wanted ", listed(s.values));
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

int op_count() { return static_cast<int>(std::size(kLines)); }
const char* op_name(int op) { return kLines[op].name; }
std::span<const Arg> args_of(int op) { return all()[op].args; }

namespace {

// Checks arguments and binds dimensions.
void bind(Call& call) {
  const Op& op = call.op;
  const TensorRef* tensors = call.t;
  const double* numbers = call.n;
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
    if (!((s.dtypes >> static_cast<int>(t->dtype)) & 1))
      fail("bad_dtype", op.name, ": ", s.name, " is ", name_of(t->dtype), ", wanted ",
           s.dtype_text == "wf" || s.activation ? "f32 or bf16" : s.dtype_text);
    if (s.activation && !s.output && t->dtype == DType::bf16)
      require(numbers[op.arg("precision")] == 1, "bad_dtype", op.name, ": ", s.name,
              " is bf16, wanted f32 at precision 0, which does not round it");
    if (!match_shape(call, s, t)) call.shape_error(static_cast<int>(i), wanted_text(call, s));
  }
  if (op.rule) op.rule(call);
}

}  // namespace

void check(int id, const TensorRef* tensors, const double* numbers) {
  const Op& op = all()[id];
  Call call{op, tensors, numbers, {}, {}};
  bind(call);
  check_aliasing(op, tensors);
}

std::vector<Index> indices(int id, const TensorRef* tensors, const double* numbers) {
  const Op& op = all()[id];
  Call call{op, tensors, numbers, {}, {}};
  bind(call);
  std::vector<Index> out(op.specs.size());
  for (size_t i = 0; i < out.size(); ++i)
    if (const Spec& s = op.specs[i]; s.limit >= 0)
      out[i] = {s.index, std::max<int64_t>(1, call.value[static_cast<size_t>(s.limit)])};
  return out;
}

}  // namespace temper::contract
