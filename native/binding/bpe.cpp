// The tokenizer as JavaScript sees it: encoders behind numbers, process-wide like tensors.
#include "tokenizer/bpe.h"

#include <cstring>
#include <memory>
#include <mutex>
#include <unordered_map>

#include "binding/js.h"

namespace temper::binding {
namespace {

struct Open {
  napi_env env;
  std::shared_ptr<tokenizer::Bpe> bpe;
};
struct Encoders {
  std::mutex mutex;
  std::unordered_map<int64_t, Open> open;
  int64_t next = 1;
};
Encoders& encoders() {
  static Encoders* e = new Encoders;
  return *e;
}

napi_value create(napi_env env, napi_callback_info info) {
  Call c(env, info, "bpeCreate", 4);
  auto [bytes, byte_count] = c.array<uint8_t>(0);
  auto [offsets, offset_count] = c.array<uint32_t>(1);
  auto [merges, merge_count] = c.array<uint32_t>(2);
  bool whole_piece = false;
  ok(napi_get_value_bool(env, c.value(3), &whole_piece), "bpeCreate: argument 4 is not a boolean");
  auto bpe = std::make_shared<tokenizer::Bpe>(std::span(bytes, byte_count), std::span(offsets, offset_count),
                                              std::span(merges, merge_count), whole_piece);
  Encoders& e = encoders();
  std::lock_guard lock(e.mutex);
  int64_t id = e.next++;
  e.open[id] = {env, std::move(bpe)};
  return js_number(env, static_cast<double>(id));
}
napi_value free_bpe(napi_env env, napi_callback_info info) {
  int64_t id = Call(env, info, "bpeFree", 1).integer(0);
  Encoders& e = encoders();
  std::lock_guard lock(e.mutex);
  require(e.open.erase(id) == 1, "stale_tokenizer", "bpeFree: tokenizer ", id, " is not open");
  return nullptr;
}
napi_value encode(napi_env env, napi_callback_info info) {
  Call c(env, info, "bpeEncode", 2);
  int64_t id = c.integer(0);
  auto [text, length] = c.array<uint8_t>(1);
  std::shared_ptr<tokenizer::Bpe> bpe;
  {
    Encoders& e = encoders();
    std::lock_guard lock(e.mutex);
    auto at = e.open.find(id);
    require(at != e.open.end(), "stale_tokenizer", "bpeEncode: tokenizer ", id, " is not open");
    bpe = at->second.bpe;
  }
  std::vector<int32_t> ids;
  bpe->encode(std::span(text, length), ids);
  void* data = nullptr;
  napi_value buffer, out;
  ok(napi_create_arraybuffer(env, ids.size() * sizeof(int32_t), &data, &buffer), "bpeEncode: no memory for the tokens");
  if (!ids.empty()) std::memcpy(data, ids.data(), ids.size() * sizeof(int32_t));
  ok(napi_create_typedarray(env, napi_int32_array, ids.size(), buffer, 0, &out), "bpeEncode: no memory for the tokens");
  return out;
}

// A worker that was terminated closed nothing.
void cleanup(void* env) {
  Encoders& e = encoders();
  std::lock_guard lock(e.mutex);
  std::erase_if(e.open, [env](const auto& entry) { return entry.second.env == env; });
}

}  // namespace

void define_bpe(napi_env env, napi_value exports) {
  ok(napi_add_env_cleanup_hook(env, cleanup, env), "cleanup");
  define<create>(env, exports, "bpeCreate");
  define<free_bpe>(env, exports, "bpeFree");
  define<encode>(env, exports, "bpeEncode");
}

}  // namespace temper::binding
