// The tokenizer as JavaScript sees it: encoders behind numbers, process-wide like tensors.
#include "tokenizer/bpe.h"

#include <algorithm>
#include <memory>

#include "binding/environment.h"
#include "binding/js.h"
#include "binding/registry.h"

namespace temper::binding {
namespace {

using Encoder = std::shared_ptr<tokenizer::Bpe>;
Registry<Encoder>& encoders() {
  static auto* r = new Registry<Encoder>({"stale_tokenizer", "tokenizer ", " is not open"});
  return *r;
}

Napi::Value create(const Napi::CallbackInfo& info) {
  const Call c(info, "bpeCreate", 4);
  auto [bytes, byte_count] = c.array<uint8_t>(0);
  auto [offsets, offset_count] = c.array<uint32_t>(1);
  auto [merges, merge_count] = c.array<uint32_t>(2);
  auto bpe = std::make_shared<tokenizer::Bpe>(std::span(bytes, byte_count), std::span(offsets, offset_count),
                                              std::span(merges, merge_count), c.boolean(3));
  return js_number(c.env(), encoders().add(owner(c.env()), std::move(bpe)));
}
void free_bpe(const Napi::CallbackInfo& info) {
  encoders().take("bpeFree", static_cast<Handle>(Call(info, "bpeFree", 1).integer(0)));
}
Napi::Value encode(const Napi::CallbackInfo& info) {
  const Call c(info, "bpeEncode", 2);
  const Encoder bpe = encoders().get("bpeEncode", static_cast<Handle>(c.integer(0)));
  auto [text, length] = c.array<uint8_t>(1);
  std::vector<int32_t> ids;
  bpe->encode(std::span(text, length), ids);
  Napi::Int32Array out = Napi::Int32Array::New(c.env(), ids.size());
  std::ranges::copy(ids, out.Data());
  return out;
}

}  // namespace

void define_bpe(Napi::Object exports) {
  define<create>(exports, "bpeCreate");
  define<free_bpe>(exports, "bpeFree");
  define<encode>(exports, "bpeEncode");
}

}  // namespace temper::binding
