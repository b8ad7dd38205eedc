// The books of a dry run, and the backend tables over them.
#include "plan/plan.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "plan/table.h"
#include "temper/error.h"
#include "temper/ops.h"

namespace temper::plan {
namespace {

constexpr uint64_t kKeptBytes = uint64_t{4} << 20;          // of a block whose contents are kept
constexpr int64_t kReportedIndices = 4096;                  // of an index tensor in the report
enum class Values : int { unknown, below, rising, known };  // of an index tensor, as src/native/plan.ts reads them

thread_local std::unique_ptr<Plan> run;

Plan& require_run() {
  require(run != nullptr, "plan_over", "a tensor of a dry run that is over was used; keep its scope inside the run");
  return *run;
}

}  // namespace

double Book::total() const {
  double sum = 0;
  for (double bytes : live) sum += bytes;
  return sum;
}
void Book::note(double workspace) {
  for (size_t c = 0; c < kCategories; ++c)
    peak[c] = std::max(peak[c], live[c] + (c == static_cast<size_t>(Category::workspace) ? workspace : 0));
  total_peak = std::max(total_peak, total() + workspace);
}

Plan::Blocks::iterator Plan::find(const void* address) {
  const auto at = reinterpret_cast<uintptr_t>(address);
  auto it = blocks_.upper_bound(at);
  if (it == blocks_.begin()) return blocks_.end();
  --it;
  return at - it->first < std::max<uint64_t>(1, it->second.size) ? it : blocks_.end();
}

char* Plan::Addresses::take(size_t bytes) {
  next = (next + 255) / 256 * 256;
  char* base = reinterpret_cast<char*>(next);
  next += bytes + 64;
  return base;
}
// What a limit refuses is taken all the same, in pages of its own: then more is held than the limit, which says that it
// does not fit, and about what would.
char* Plan::allocate_on_device(uint64_t bytes, Category category) {
  char* at = segments_.allocate(bytes, category);
  if (at) return at;
  const size_t limit = segments_.limit();
  segments_.set_limit(segments_.held() + bytes + (size_t{4} << 20));  // no segment for others too
  at = segments_.allocate(bytes, category);
  segments_.set_limit(limit);
  return at;
}

uintptr_t Plan::allocate(Place place, uint64_t bytes, Category category) {
  uintptr_t at = next_;
  if (place == Place::device) at = reinterpret_cast<uintptr_t>(allocate_on_device(bytes, category));
  else next_ += (bytes + 127) / 64 * 64;
  Book& book = books[static_cast<int>(place)];
  if (std::exchange(offload_, false)) {
    blocks_[at] = {bytes, 0, bytes, place, category, {}};
    offloaded_ += static_cast<double>(bytes);
    offloaded_peak_ = std::max(offloaded_peak_, offloaded_);
  } else if (std::exchange(reserve_, false)) {
    blocks_[at] = {bytes, 0, 0, place, category, {}};
  } else {
    blocks_[at] = {bytes, bytes, 0, place, category, {}};
    book.hold(category, static_cast<double>(bytes));
    book.note(0);
  }
  return at;
}

void Plan::commit(const void* block, uint64_t bytes) {
  const auto it = find(block);
  if (it == blocks_.end() || bytes <= it->second.bytes) return;
  Block& b = it->second;
  Book& book = books[static_cast<int>(b.place)];
  book.hold(b.category, static_cast<double>(bytes - b.bytes));
  book.note(0);
  b.bytes = bytes;
}

void Plan::release(const void* block) noexcept {
  const auto it = blocks_.find(reinterpret_cast<uintptr_t>(block));
  if (it == blocks_.end()) return;  // a mapped file's, or an earlier run's
  const Block& b = it->second;
  if (b.place == Place::device) segments_.release(reinterpret_cast<char*>(it->first));
  books[static_cast<int>(b.place)].hold(b.category, -static_cast<double>(b.bytes));
  offloaded_ -= static_cast<double>(b.offloaded);
  blocks_.erase(it);
}

void Plan::write(const void* to, const void* from, uint64_t bytes) {
  const auto it = find(to);
  if (it == blocks_.end() || it->second.size > kKeptBytes || it->second.bytes != it->second.size) return;
  Block& b = it->second;
  b.contents.resize(b.size);
  std::memcpy(b.contents.data() + (reinterpret_cast<uintptr_t>(to) - it->first), from, bytes);
}
void Plan::read(void* to, const void* from, uint64_t bytes) const {
  const auto it = find(from);
  if (it != blocks_.end() && !it->second.contents.empty())
    std::memcpy(to, it->second.contents.data() + (reinterpret_cast<uintptr_t>(from) - it->first), bytes);
  else if (bytes) std::memset(to, 0, bytes);
}
void Plan::copy(const void* to, const void* from, uint64_t bytes) {
  const auto it = find(from);
  if (it == blocks_.end() || it->second.contents.empty()) return forget({const_cast<void*>(to)});
  const std::vector<uint8_t> contents = it->second.contents;
  write(to, contents.data() + (reinterpret_cast<uintptr_t>(from) - it->first), bytes);
}
void Plan::zero(const void* to, uint64_t bytes) {
  const auto it = find(to);
  if (it == blocks_.end() || it->second.contents.empty()) return;
  std::memset(it->second.contents.data() + (reinterpret_cast<uintptr_t>(to) - it->first), 0, bytes);
}

Tensor Plan::known(const Tensor& t) const {
  const auto it = find(t.data);
  if (it == blocks_.end() || it->second.contents.empty()) return t;
  Tensor out = t;
  out.data = const_cast<uint8_t*>(it->second.contents.data()) + (reinterpret_cast<uintptr_t>(t.data) - it->first);
  return out;
}
void Plan::forget(const Tensor& t) {
  if (const auto it = find(t.data); it != blocks_.end()) it->second.contents.clear();
}

// tag 2, dtype, ndim, shape…, Values, then: below and rising one number, known as many as there are elements.
void Plan::write_tensor(TensorRef t, const contract::Index& index) {
  log_.insert(log_.end(), {2, static_cast<double>(t->dtype), static_cast<double>(t->ndim)});
  for (int d = 0; d < t->ndim; ++d) log_.push_back(static_cast<double>(t->shape[d]));
  const auto tag = [&](Values v) { log_.push_back(static_cast<double>(v)); };
  if (t->dtype == DType::i32 && has_contents(t) && t->numel() <= kReportedIndices) {
    tag(Values::known);
    for (int64_t i = 0; i < t->numel(); ++i) log_.push_back(t->i32()[i]);
  } else if (index.kind != contract::Index::none) {
    tag(index.kind == contract::Index::below ? Values::below : Values::rising);
    log_.push_back(static_cast<double>(index.limit));
  } else {
    tag(Values::unknown);
  }
}

void Plan::call(int op, Place place, const Cost& cost, const TensorRef* tensors, const double* numbers) {
  books[static_cast<int>(place)].note(cost.workspace);
  if (place == Place::device && cost.workspace > 0)
    segments_.release(allocate_on_device(static_cast<uint64_t>(cost.workspace), Category::workspace));
  ++calls_;
  const auto args = contract::args_of(op);
  const auto indices = contract::indices(op, tensors, numbers);
  log_.insert(log_.end(), {static_cast<double>(op), cost.flops, cost.bytes, cost.rows, cost.workspace});
  for (size_t i = 0; i < args.size(); ++i) {
    if (args[i].kind != contract::Kind::tensor) log_.insert(log_.end(), {1, numbers[i]});
    else if (!tensors[i]) log_.push_back(0);
    else write_tensor(tensors[i], indices[i]);
  }
}

std::vector<double> Plan::report() const {
  std::vector<double> out;
  for (const Book& book : books) {
    out.insert(out.end(), book.peak.begin(), book.peak.end());
    out.push_back(book.total_peak);
  }
  out.insert(out.end(), {static_cast<double>(segments_.held_peak()), mapped_, offloaded_peak_, calls_});
  out.insert(out.end(), log_.begin(), log_.end());
  return out;
}

Plan* current() noexcept { return run.get(); }
void begin() {
  require(!run, "plan_running", "a dry run is under way on this thread; end it first");
  run = std::make_unique<Plan>();
}
std::unique_ptr<Plan> end() { return std::move(run); }
void note_host_workspace(size_t bytes) {
  require_run().books[static_cast<int>(Place::host)].note(static_cast<double>(bytes));
}

// ---- the backends ----

namespace {

template <Place place>
void do_allocate(void** out, uint64_t bytes, int32_t category) {
  *out = reinterpret_cast<void*>(require_run().allocate(place, bytes, static_cast<Category>(category)));
}
void do_release(void* block) {
  if (run) run->release(block);
}
template <Place place>
void do_memory(TemperDeviceMemory* out) {
  *out = {};
  if (!run) return;
  const Book& book = run->books[static_cast<int>(place)];
  for (size_t c = 0; c < Book::kCategories; ++c) {
    out->live[c] = static_cast<int64_t>(book.live[c]);
    out->peak[c] = static_cast<int64_t>(book.peak[c]);
  }
  out->total_live = out->held = static_cast<int64_t>(book.total());
  out->total_peak = out->held_peak = static_cast<int64_t>(book.total_peak);
  if (place == Place::host) return;
  const gpu::Segments& held = run->held();
  out->held = static_cast<int64_t>(held.held());
  out->held_peak = static_cast<int64_t>(held.held_peak());
  out->limit = static_cast<int64_t>(held.limit());
}
void do_upload(void* to, const void* from, uint64_t bytes) {
  if (run) run->write(to, from, bytes);
}
void do_download(void* to, const void* from, uint64_t bytes) {
  if (run) run->read(to, from, bytes);
  else std::memset(to, 0, bytes);
}
void do_copy(void* to, const void* from, uint64_t bytes) {
  if (run) run->copy(to, from, bytes);
}
void do_zero(void* to, uint64_t bytes) {
  if (run) run->zero(to, bytes);
}
void do_open(int32_t index, int64_t limit) {
  Plan& plan = require_run();
  plan.device_index = std::max(0, index);
  if (limit) plan.set_device_limit(limit);
}
void do_opened(int32_t* index) { *index = run ? run->device_index : -1; }
void do_prefetch(void* to, const void* from, uint64_t bytes, uint64_t* ticket) {
  static thread_local uint64_t tickets = uint64_t{1} << 40;  // apart from a device's own
  do_copy(to, from, bytes);
  *ticket = ++tickets;
}
void no_graph() { fail("internal", "a dry run records in the binding"); }

template <Place place>
TemperBackend make() {
  return {.abi = TEMPER_BACKEND_ABI,
          .size = sizeof(TemperBackend),
          .op_text = TEMPER_OP_TEXT,
          .name = place == Place::host ? "plan" : "plan-device",
          .built_for = "",
          .ops = &table(place),
          .versions = [](int32_t* driver, int32_t* runtime) { return *driver = *runtime = 0; },
          .device_count = [](int32_t* count) { return *count = 0; },
          .device_info =
              [](int32_t index, TemperDeviceInfo* out) {
                *out = {};
                out->index = index;
                return 0;
              },
          .open = Guard<&do_open>::call,
          .opened = Guard<&do_opened>::call,
          .close = [] {},
          .allocate = Guard<&do_allocate<place>>::call,
          .release = do_release,
          .memory = Guard<&do_memory<place>>::call,
          .reset_peaks = [] {},
          .trim = [] {},
          .upload = Guard<&do_upload>::call,
          .download = Guard<&do_download>::call,
          .copy = Guard<&do_copy>::call,
          .zero = Guard<&do_zero>::call,
          .synchronize = [] { return 0; },
          .prefetch = Guard<&do_prefetch>::call,
          .evict = Guard<&do_prefetch>::call,
          .arrive = [](uint64_t) { return 0; },
          .transfers = [](TemperTransfers* out) { return *out = {}, 0; },
          .begin_graph = [] { return Guard<&no_graph>::call(); },
          .end_graph = [](void**, int32_t) { return Guard<&no_graph>::call(); },
          .launch_graph = [](void*) { return Guard<&no_graph>::call(); },
          .free_graph = [](void*) {},
          .tiles = "",
          .set_tile = [](const char*, const char*) { return 0; },
          .tiled_products = [](const char** lines) { return *lines = "", 0; },
          .last_error_code = [] { return last_error().code.c_str(); },
          .last_error_message = [] { return last_error().message.c_str(); }};
}

}  // namespace

const TemperBackend& backend(Place place) {
  static const TemperBackend host = make<Place::host>(), device = make<Place::device>();
  return place == Place::host ? host : device;
}

}  // namespace temper::plan
